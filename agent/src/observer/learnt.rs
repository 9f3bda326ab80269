//! Settings that an agent came to tell of a file that it knew before, which is no change of the file.
//!
//! A state may hold files as an agent read them that knew fewer formats, or read one otherwise. What the agent has learnt since
//! is not what somebody did to the host.

use trueline_drift::format::is_of_settings;
use trueline_drift::{Fields, Value};

const DIGEST: &str = "sha256";
const FORMAT: &str = "format";

/// A file as it was before, with the settings that would have been told of it then; nothing where they were.
pub(super) fn with_settings(before: &Fields, after: &Fields) -> Option<Fields> {
    let digest = before.value(DIGEST)?;
    let is_same = !digest.is_unreadable() && after.value(DIGEST) == Some(digest);
    if !is_same && (before.value(FORMAT).is_some() || after.value(FORMAT).is_none()) {
        return None;
    }
    let mut learnt: Fields = before.clone().into_iter().filter(|(name, _)| !is_of_settings(name.as_str())).collect();
    for (name, value) in after.iter().filter(|(name, _)| is_of_settings(name.as_str())) {
        // Of other contents nobody knows what they set.
        let is_known = is_same || name.as_str() == FORMAT;
        let value = if is_known { value.clone() } else { Value::unreadable("the agent did not read settings then") };
        learnt.set(name.clone(), value);
    }
    (learnt != *before).then_some(learnt)
}

#[cfg(test)]
mod tests {
    use trueline_drift::FieldName;

    use super::*;

    fn file(digest: &str, setting: Option<&str>) -> Fields {
        let mut fields = Fields::new().with("sha256", digest).with("mode", "0644");
        if let Some(setting) = setting {
            fields.set(FieldName::known("format"), Value::text("sshd_config"));
            fields.set(FieldName::new("config.PermitRootLogin"), Value::text(setting));
        }
        fields
    }

    #[test]
    fn the_same_contents_set_the_same_whatever_an_older_agent_told_of_them() {
        assert_eq!(with_settings(&file("a", None), &file("a", Some("no"))), Some(file("a", Some("no"))));
        assert_eq!(with_settings(&file("a", Some("NO")), &file("a", Some("no"))), Some(file("a", Some("no"))), "read otherwise");
        assert_eq!(with_settings(&file("a", Some("no")), &file("a", None)), Some(file("a", None)), "an older agent");
        assert_eq!(with_settings(&file("a", Some("no")), &file("a", Some("no"))), None);
    }

    #[test]
    fn what_other_contents_set_then_is_not_made_up() {
        let learnt = with_settings(&file("a", None), &file("b", Some("no"))).unwrap();
        assert!(learnt.value("config.PermitRootLogin").unwrap().is_unreadable(), "{learnt:?}");
        assert_eq!(with_settings(&file("a", Some("yes")), &file("b", Some("no"))), None, "a change like any other");
        assert_eq!(with_settings(&Fields::new().with("type", "symlink"), &file("b", Some("no"))), None, "a file that is new");
    }
}
