//! Repositories of dnf, yum and zypper (dnf.conf(5)): sections of `name = value`, a value going on where a line begins with
//! a blank.

use std::collections::BTreeMap;

pub const SECTIONS_LIMIT: usize = 4096;

/// The settings of each section by its name, and how many lines made no sense. Of a name that comes again the last counts.
pub fn sections(text: &str) -> (BTreeMap<String, BTreeMap<String, String>>, u64) {
    let (mut sections, mut malformed) = (BTreeMap::<String, BTreeMap<String, String>>::new(), 0);
    let mut current = None::<String>;
    let mut last = None::<String>;
    for line in text.lines() {
        let is_continued = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let settings = current.as_ref().and_then(|current| sections.get_mut(current));
        if is_continued && let Some(value) = last.as_ref().zip(settings).and_then(|(last, settings)| settings.get_mut(last)) {
            value.push(' ');
            value.push_str(line);
        } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.split_once(']')).map(|(name, _)| name.trim()) {
            let is_taken = !name.is_empty() && (sections.len() < SECTIONS_LIMIT || sections.contains_key(name));
            malformed += u64::from(!is_taken);
            current = is_taken.then(|| name.to_owned());
            if is_taken {
                sections.entry(name.to_owned()).or_default();
            }
            last = None;
        } else {
            let settings = current.as_ref().and_then(|current| sections.get_mut(current));
            match (settings, line.split_once('=')) {
                (Some(settings), Some((name, value))) => {
                    let name = name.trim().to_ascii_lowercase();
                    settings.insert(name.clone(), value.trim().to_owned());
                    last = Some(name);
                }
                _ => malformed += 1,
            }
        }
    }
    (sections, malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_goes_on_where_a_line_begins_with_a_blank() {
        let text = "[main]\n# none\n[updates]\nname=Fedora $releasever\nbaseurl = https://a/\n  https://b/\nenabled=1\nenabled=0\nodd\n[\n";
        let (sections, malformed) = sections(text);
        assert_eq!(malformed, 2);
        assert!(sections["main"].is_empty());
        assert_eq!(sections["updates"]["baseurl"], "https://a/ https://b/");
        assert_eq!(sections["updates"]["enabled"], "0");
    }

    proptest! {
        #[test]
        fn hostile_repositories_never_panic(text in "(\\[a\\]|[\\[\\]= a#\n]){0,80}", any in ".{0,200}") {
            sections(&text);
            sections(&any);
        }
    }
}
