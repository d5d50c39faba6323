//! The events of a streamed chat completion that carry text and nothing else, which are nearly all of them.
//!
//! An event with anything more in it (calls of tools, thoughts, probabilities, usage, an error) or with anything odd is left to
//! the caller, as it is.

use jiter::{JsonArray, JsonObject, JsonValue};

/// Text that was added to a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextDelta {
    /// What was added, maybe nothing.
    pub text: String,
    /// Which generation, from 0.
    pub index: i64,
    /// Why the generation ended, if it did.
    pub finish_reason: Option<String>,
}

impl TextDelta {
    /// The delta that is all an event's data has to say; None where there is more or less to it.
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Self> {
        let JsonValue::Object(event) = JsonValue::parse(data, false).ok()? else {
            return None;
        };
        let mut choices: Option<&JsonArray<'_>> = None;
        for (name, value) in event.iter() {
            match (&**name, value) {
                ("choices", JsonValue::Array(listed)) => choices = Some(listed),
                ("choices", _) => return None,
                // What every event of a stream repeats, and the last one, with the usage, says too.
                (
                    "id" | "object" | "created" | "model" | "system_fingerprint" | "service_tier"
                    | "obfuscation" | "provider",
                    _,
                )
                | (_, JsonValue::Null) => {}
                _ => return None,
            }
        }
        match choices?.as_slice() {
            [JsonValue::Object(choice)] => Self::of_choice(choice),
            _ => None,
        }
    }

    fn of_choice(choice: &JsonObject<'_>) -> Option<Self> {
        let (mut text, mut index, mut finish_reason) = (None, 0, None);
        for (name, value) in choice.iter() {
            match (&**name, value) {
                ("delta", JsonValue::Object(delta)) => text = Some(text_of(delta)?),
                ("index", JsonValue::Int(at)) => index = *at,
                ("finish_reason", JsonValue::Str(reason)) => {
                    finish_reason = Some(reason.to_string());
                }
                ("finish_reason", JsonValue::Null) => finish_reason = None,
                (_, JsonValue::Null) => {}
                _ => return None,
            }
        }
        Some(Self {
            text: text?,
            index,
            finish_reason,
        })
    }
}

fn text_of(delta: &JsonObject<'_>) -> Option<String> {
    let mut text = String::new();
    for (name, value) in delta.iter() {
        match (&**name, value) {
            ("content", JsonValue::Str(content)) => text = content.to_string(),
            ("content", JsonValue::Null) => text.clear(),
            ("role", JsonValue::Str(_)) | (_, JsonValue::Null) => {}
            _ => return None,
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::TextDelta;

    fn delta(text: &str, index: i64, finish_reason: Option<&str>) -> TextDelta {
        TextDelta {
            text: text.to_owned(),
            index,
            finish_reason: finish_reason.map(str::to_owned),
        }
    }

    #[test]
    fn a_plain_event_is_read_and_another_one_is_left() {
        let plain = [
            (
                r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#,
                delta("a", 0, None),
            ),
            (
                r#"{"id":"x","usage":null,"choices":[{"index":2,"delta":{"role":"assistant","content":"\u00e9"},"logprobs":null,"finish_reason":"stop"}]}"#,
                delta("é", 2, Some("stop")),
            ),
            (
                r#"{"choices":[{"delta":{}}],"choices":[{"delta":{"content":"b"}}]}"#,
                delta("b", 0, None),
            ),
            (
                r#"{"choices":[{"delta":{"content":null,"tool_calls":null}}]}"#,
                delta("", 0, None),
            ),
        ];
        for (event, expected) in plain {
            assert_eq!(TextDelta::read(event.as_bytes()), Some(expected), "{event}");
        }
        for event in [
            "[DONE]",
            "{",
            "[]",
            "{}",
            r#"{"choices":[]}"#,
            r#"{"choices":5}"#,
            r#"{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a","reasoning":"b"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[]}}]}"#,
            r#"{"choices":[{"delta":{"content":["a"]}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"},"logprobs":{}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"},"finish_reason":7}]}"#,
            r#"{"choices":[{"delta":{"content":"a"},"index":"0"}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}}],"usage":{}}"#,
            r#"{"choices":[{"delta":{"content":"a"}}],"citations":["http://x"]}"#,
            r#"{"choices":[{"delta":{"content":"a","refusal":"b"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a","annotations":[]}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}}],"error":{}}"#,
            r#"{"choices":[{"index":0}]}"#,
            r#"{"choices":[{"delta":{"content":"\ud800"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}}],"x":NaN}"#,
        ] {
            assert_eq!(TextDelta::read(event.as_bytes()), None, "{event}");
        }
    }
}
