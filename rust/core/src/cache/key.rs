//! What an answer is found by.

use sha2::{Digest, Sha256};

/// The hash of what was asked, and of whom: SHA-256, so that nobody finds two questions with one key, nor the question
/// that a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of a request.
    ///
    /// - `scope`: whom it is asked: the server and the protocol.
    /// - `body`: the body to the byte.
    /// - `rollout`: the number of a repetition that is to have an answer of its own.
    #[must_use]
    pub fn of(scope: &[u8], body: &[u8], rollout: Option<&[u8]>) -> Self {
        let mut hash = Sha256::new();
        // Each part says how long it is, or the end of one could pass for the beginning of the next.
        for part in [scope, body] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        if let Some(rollout) = rollout {
            hash.update(rollout);
        }
        hash.update([u8::from(rollout.is_some())]);
        Self(hash.finalize().into())
    }

    /// The key that has these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::fmt::Write as _;

    #[test]
    fn what_is_cut_elsewhere_or_asked_elsewhere_has_another_key() {
        let requests: [(&str, &str, Option<&str>); 8] = [
            ("", "", None),
            ("", "", Some("")),
            ("a", "b", None),
            ("", "ab", None),
            ("ab", "", None),
            ("a", "", Some("b")),
            ("a", "b", Some("1")),
            ("a", "b1", None),
        ];
        let keys: HashSet<Key> = requests
            .iter()
            .map(|(scope, body, rollout)| {
                Key::of(
                    scope.as_bytes(),
                    body.as_bytes(),
                    rollout.map(str::as_bytes),
                )
            })
            .collect();
        assert_eq!(keys.len(), requests.len());
    }

    #[test]
    fn a_key_is_the_same_in_every_process_and_version() {
        // It is in files: another value would make all of them useless without a word.
        let key = Key::of(b"server", b"{}", Some(b"1"));
        let hex = key.as_bytes().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        assert_eq!(
            hex,
            "4777a677f15d772c4f679191d617c158f174d396df6c46254e90a7a04dfa25c9"
        );
    }
}
