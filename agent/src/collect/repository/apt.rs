//! Sources of apt (sources.list(5)): one line each, or stanzas of deb822. Both come out as the same.

use std::collections::BTreeMap;

/// Most sources of one file: each address is one with each suite.
pub const SOURCES_LIMIT: usize = 4096;

/// Bytes of the sources of one file: each address with each suite has all that stands in their stanza.
const SOURCES_BYTES: usize = 8 * 1024 * 1024;

/// One address with one suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub types: Vec<String>,
    pub address: String,
    pub suite: String,
    pub components: Vec<String>,
    /// By name, in small letters and the short form of the one-line style: `arch`, `trusted`.
    pub options: BTreeMap<String, String>,
    pub is_enabled: bool,
}

/// Options that deb822 calls otherwise than the one-line style.
const NAMES: &[(&str, &str)] = &[("architectures", "arch"), ("languages", "lang"), ("targets", "target")];

/// Options whose values have no order.
const UNORDERED: &[&str] = &["arch", "lang", "target"];

/// The sources of a `.list` file, and how many lines made no sense.
pub fn one_line(text: &str) -> (Vec<Source>, u64) {
    let (mut sources, mut malformed) = (Vec::new(), 0);
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty()) {
        match source(line) {
            Some(source) if sources.len() < SOURCES_LIMIT => sources.push(source),
            _ => malformed += 1,
        }
    }
    (sources, malformed)
}

fn source(line: &str) -> Option<Source> {
    let mut words = words(line).into_iter().peekable();
    let kind = words.next().filter(|kind| matches!(kind.as_str(), "deb" | "deb-src"))?;
    let mut options = BTreeMap::new();
    if let Some(bracketed) = words.next_if(|word| word.starts_with('[')) {
        for option in bracketed.trim_matches(['[', ']']).split_ascii_whitespace() {
            let (name, value) = option.split_once('=')?;
            set(&mut options, name, value);
        }
    }
    let (address, suite) = (words.next()?, words.next()?);
    let mut source = Source { types: vec![kind], address: bare(&address), suite, components: words.collect(), options, is_enabled: true };
    source.components.retain(|component| !component.is_empty());
    Some(source)
}

/// Words between blanks; what is in brackets or quotes holds together, as in `cdrom:[Debian 12 DVD]/`.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut depth, mut is_quoted) = (0usize, false);
    for c in line.chars() {
        match c {
            '"' => {
                is_quoted = !is_quoted;
                continue;
            }
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c.is_ascii_whitespace() && depth == 0 && !is_quoted {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The sources of a `.sources` file, and how many stanzas made no sense.
pub fn deb822(text: &str) -> (Vec<Source>, u64) {
    let (mut sources, mut malformed) = (Vec::new(), 0);
    let mut stanza = BTreeMap::<String, String>::new();
    let mut last = None::<String>;
    let mut room = SOURCES_BYTES;
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            if !stanza.is_empty() {
                malformed += u64::from(take(&stanza, &mut sources, &mut room).is_none());
            }
            stanza.clear();
            last = None;
        } else if line.starts_with([' ', '\t']) {
            match last.as_ref().and_then(|last| stanza.get_mut(last)) {
                Some(value) => {
                    value.push('\n');
                    value.push_str(line.trim());
                }
                None => malformed += 1,
            }
        } else if let Some((name, value)) = line.split_once(':') {
            let name = name.trim().to_ascii_lowercase();
            last = Some(name.clone());
            stanza.insert(name, value.trim().to_owned());
        } else {
            malformed += 1;
            last = None;
        }
    }
    (sources, malformed)
}

/// Every address of a stanza with every suite of it. `None`: the stanza is no source, or there are too many.
fn take(stanza: &BTreeMap<String, String>, sources: &mut Vec<Source>, room: &mut usize) -> Option<()> {
    let list = |name: &str| -> Vec<String> {
        stanza.get(name).map(|value| value.split_ascii_whitespace().map(str::to_owned).collect()).unwrap_or_default()
    };
    let (types, addresses, suites) = (list("types"), list("uris"), list("suites"));
    if types.is_empty() || addresses.is_empty() || suites.is_empty() {
        return None;
    }
    let count = addresses.len().saturating_mul(suites.len());
    if count > SOURCES_LIMIT - sources.len().min(SOURCES_LIMIT) {
        return None;
    }
    let size: usize = stanza.iter().map(|(name, value)| name.len() + value.len()).sum();
    *room = room.checked_sub(size.saturating_mul(count))?;
    let mut options = BTreeMap::new();
    for (name, value) in stanza {
        let is_own = matches!(name.as_str(), "types" | "uris" | "suites" | "components" | "enabled" | "description");
        if !is_own && !name.starts_with("x-") {
            set(&mut options, name, value);
        }
    }
    let is_off = |value: &String| matches!(value.to_ascii_lowercase().as_str(), "no" | "false" | "without" | "off" | "disable" | "0");
    let is_enabled = !stanza.get("enabled").is_some_and(is_off);
    let components = list("components");
    for address in &addresses {
        sources.extend(suites.iter().map(|suite| Source {
            types: types.clone(),
            address: bare(address),
            suite: suite.clone(),
            components: components.clone(),
            options: options.clone(),
            is_enabled,
        }));
    }
    Some(())
}

fn set(options: &mut BTreeMap<String, String>, name: &str, value: &str) {
    let name = name.to_ascii_lowercase();
    let name = NAMES.iter().find(|(long, _)| *long == name).map_or(name.as_str(), |(_, short)| short);
    // A key that is written out keeps its lines.
    if value.contains("-----BEGIN") {
        options.insert(name.to_owned(), value.to_owned());
        return;
    }
    let mut values: Vec<_> = value.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|value| !value.is_empty()).collect();
    if UNORDERED.contains(&name) {
        values.sort_unstable();
    }
    options.insert(name.to_owned(), values.join(","));
}

/// To apt an address is the same with a slash at its end and without.
fn bare(address: &str) -> String {
    address.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_styles_tell_the_same() {
        let line =
            "deb [ arch=i386,amd64 signed-by=/usr/share/keyrings/x.gpg trusted=yes ] https://repo.example/apt/ stable main extra # mine\n";
        let stanza = "# mine\nTypes: deb\nURIs: https://repo.example/apt\nSuites: stable\nComponents: main\n# between\n extra\n\
            Architectures: amd64 i386\nSigned-By: /usr/share/keyrings/x.gpg\nTrusted: yes\nX-Repolib-Name: Mine\n";
        let (lines, malformed) = one_line(line);
        assert_eq!((lines.len(), malformed), (1, 0));
        assert_eq!(deb822(stanza), (lines.clone(), 0));
        assert_eq!(lines[0].options["arch"], "amd64,i386");
        assert_eq!(lines[0].components, ["main", "extra"]);
    }

    #[test]
    fn each_address_is_a_source_with_each_suite() {
        let stanza = "Types: deb deb-src\nURIs: http://a http://b\nSuites: one two/\nEnabled: no\n";
        let (sources, malformed) = deb822(stanza);
        let shown: Vec<_> = sources.iter().map(|source| format!("{} {} {}", source.address, source.suite, source.is_enabled)).collect();
        assert_eq!(shown, ["http://a one false", "http://a two/ false", "http://b one false", "http://b two/ false"]);
        assert_eq!(malformed, 0);
        let (sources, malformed) = one_line("deb cdrom:[Debian GNU/Linux 12 _Bookworm_]/ bookworm main\nrpm x y\ndeb http://a\n");
        assert_eq!((sources[0].address.as_str(), sources[0].suite.as_str()), ("cdrom:[Debian GNU/Linux 12 _Bookworm_]", "bookworm"));
        assert_eq!((sources.len(), malformed), (1, 2));
    }

    #[test]
    fn a_stanza_that_would_be_too_many_sources_is_counted() {
        let many = |name: &str| (0..100).map(|number| format!(" {name}{number}")).collect::<String>();
        let stanza = format!("Types: deb\nURIs:{}\nSuites:{}\n", many("http://"), many("s"));
        assert_eq!(deb822(&stanza), (vec![], 1));
    }

    proptest! {
        #[test]
        fn hostile_sources_never_panic(text in "(deb|[ \\[\\]=:#\"\n]|Types: x\n|URIs: a b\n|Suites: c\n){0,60}", any in ".{0,200}") {
            for text in [text, any] {
                prop_assert!(one_line(&text).0.len() <= SOURCES_LIMIT);
                prop_assert!(deb822(&text).0.len() <= SOURCES_LIMIT);
            }
        }
    }
}
