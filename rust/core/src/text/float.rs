//! `repr` of a float.

use std::fmt::Write as _;

/// Append `repr(value)`: the shortest digits that read back the same, with an exponent below `1e-4` and
/// from `1e16` on.
pub fn push_float(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("nan");
        return;
    }
    if value.is_infinite() {
        out.push_str(if value < 0.0 { "-inf" } else { "inf" });
        return;
    }
    let size = value.abs();
    if size == 0.0 || (1e-4..1e16).contains(&size) {
        // `{:?}` keeps the `.0` of whole numbers, as Python does, and has no exponent in this range.
        _ = write!(out, "{value:?}");
        return;
    }
    let start = out.len();
    _ = write!(out, "{value:e}");
    // Rust writes `1e-7` and `1e20`; Python signs the exponent and gives it two digits at least.
    let Some(e) = out[start..].find('e') else {
        return;
    };
    let exponent = out.split_off(start + e + 1);
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent.as_str()),
    };
    _ = write!(out, "{sign}{digits:0>2}");
}

#[cfg(test)]
mod tests {
    use super::push_float;

    #[test]
    fn floats_print_as_python_prints_them() {
        let cases: &[(f64, &str)] = &[
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (5.0, "5.0"),
            (0.1, "0.1"),
            (-1234.5, "-1234.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e-7, "1e-07"),
            (1.5e-300, "1.5e-300"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1e20, "1e+20"),
            (-1.25e100, "-1.25e+100"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::NAN, "nan"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for &(value, expected) in cases {
            let mut out = String::new();
            push_float(&mut out, value);
            assert_eq!(out, expected);
        }
    }
}
