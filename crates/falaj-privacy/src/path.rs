//! JSON paths as the pipeline file writes them, and the patterns of `never`.

/// Longest path that can be declared, in object keys.
const SEGMENTS_MAX: usize = 32;

/// Why a text is no path; completes "`x` is not a JSON path: ..".
pub(crate) fn path_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("it is empty")
    } else if text.split('.').any(str::is_empty) {
        Some("a key between its dots is empty")
    } else if text.split('.').any(|key| key == "*" || key == "**") {
        Some("it names one value, so `*` has no place in it")
    } else if text.split('.').count() > SEGMENTS_MAX {
        Some("it has more than 32 keys")
    } else {
        None
    }
}

/// A pattern of `never`: keys, `*` for any one key, and `**` at the end for whatever lies below.
pub(crate) struct Never {
    keys: Vec<String>,
}

impl Never {
    /// Reads a pattern; the error completes "`x` is not a pattern: ..".
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut keys: Vec<String> = text.split('.').map(str::to_owned).collect();
        if keys.iter().any(String::is_empty) {
            return Err("a key between its dots is empty");
        }
        // What lies below a forbidden value is part of it, so `x` forbids what `x.**` does.
        if keys.last().is_some_and(|key| key == "**") {
            keys.pop();
        }
        if keys.iter().any(|key| key == "**") {
            return Err("`**` stands only at the end");
        }
        Ok(Self { keys })
    }

    /// Whether the value at `path` is forbidden, or part of a forbidden one.
    pub(crate) fn forbids(&self, path: &str) -> bool {
        let mut keys = path.split('.');
        self.keys
            .iter()
            .all(|want| keys.next().is_some_and(|key| want == "*" || want == key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_forbids_its_value_and_all_that_lies_below() {
        for (pattern, path, forbidden) in [
            ("login.**", "login", true),
            ("login.**", "login.uuid", true),
            ("login.**", "login.a.b", true),
            ("login.**", "logins", false),
            ("login.**", "x.login", false),
            ("phone", "phone", true),
            ("phone", "phone.home", true),
            ("phone", "phones", false),
            ("*.secret", "a.secret", true),
            ("*.secret", "a.b.secret", false),
            ("*.secret", "secret", false),
            ("a.*.c.**", "a.b.c", true),
            ("a.*.c.**", "a.b", false),
            ("**", "anything.at.all", true),
        ] {
            let never = Never::parse(pattern).expect("a pattern");
            assert_eq!(never.forbids(path), forbidden, "{pattern} and {path}");
        }
        for pattern in ["", "a..b", "a.**.b", ".a"] {
            assert!(Never::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_path_has_keys_and_no_wild_cards() {
        for good in ["nat", "dob.age", "a b.ü", "[0]"] {
            assert_eq!(path_fault(good), None, "{good}");
        }
        let long = vec!["a"; SEGMENTS_MAX + 1].join(".");
        for bad in ["", ".", "a.", ".a", "a..b", "a.*", "**", &long] {
            assert!(path_fault(bad).is_some(), "{bad}");
        }
    }
}
