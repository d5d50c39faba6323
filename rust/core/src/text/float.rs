//! `repr` of a float.

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
    // Not `{:?}` of the standard library: of two shortest candidates that are equally near it takes the
    // other one than Python.
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(value);
    let size = value.abs();
    if size == 0.0 || (1e-4..1e16).contains(&size) {
        out.push_str(text);
        return;
    }
    let text = match text.strip_prefix('-') {
        Some(text) => {
            out.push('-');
            text
        }
        None => text,
    };
    if let Some((digits, exponent)) = text.split_once('e') {
        let (sign, exponent) = exponent
            .strip_prefix('-')
            .map_or(('+', exponent), |e| ('-', e));
        out.push_str(digits);
        push_exponent(out, sign, exponent);
    } else {
        // The one magnitude where ryu has no exponent yet, and Python has: `0.0000ddd`.
        let digits = text.trim_start_matches(['0', '.']);
        out.push_str(&digits[..1]);
        if digits.len() > 1 {
            out.push('.');
            out.push_str(&digits[1..]);
        }
        push_exponent(out, '-', "5");
    }
}

fn push_exponent(out: &mut String, sign: char, digits: &str) {
    out.push('e');
    out.push(sign);
    if digits.len() < 2 {
        out.push('0');
    }
    out.push_str(digits);
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
            (-0.000_012_5, "-1.25e-05"),
            (f64::from_bits(0x4300_0000_0000_0004), "562949953421312.5"),
            (f64::from_bits(0x4300_0000_0000_0002), "562949953421312.2"),
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
