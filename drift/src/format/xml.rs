//! XML 1.0. Elements and attributes by their path: `server.connector[name=a].@port`, `server.port`. Elements of one name beside each
//! other are a list in their order; the order of those of different names does not show.
//!
//! quick-xml reads it as a stream without recursion, expands no entities and opens nothing. References to entities of
//! a document's own stay as they are written, `&name;`.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::tree::{self, Count, Node};
use super::{FormatError, Settings};

pub(super) fn covers(path: &str) -> bool {
    super::has_suffix(path, &[".xml"])
}

/// An element that is not closed yet.
struct Element {
    name: String,
    /// Attributes and elements in it, in the order of the file.
    within: Vec<(String, Node)>,
    text: String,
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut count = Count::default();
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    loop {
        let fail = |reader: &Reader<&[u8]>, reason| {
            let at = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX).min(text.len());
            FormatError { line: text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1, reason }
        };
        let event = reader.read_event().map_err(|_| FormatError { line: 0, reason: "it is no XML" })?;
        match event {
            Event::Start(start) => open.push(element(&start, open.len(), &mut count).map_err(|reason| fail(&reader, reason))?),
            Event::Empty(start) => {
                let element = element(&start, open.len(), &mut count).map_err(|reason| fail(&reader, reason))?;
                close(element, &mut open, &mut root).map_err(|reason| fail(&reader, reason))?;
            }
            Event::End(_) => {
                let element = open.pop().ok_or_else(|| fail(&reader, "it is no XML"))?;
                close(element, &mut open, &mut root).map_err(|reason| fail(&reader, reason))?;
            }
            Event::Text(said) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&said);
                }
            }
            Event::CData(said) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&said);
                }
            }
            Event::GeneralRef(said) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&unescaped(&format!("&{};", &*said)));
                }
            }
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    match (root, open.is_empty()) {
        (Some((name, node)), true) => tree::take(&Node::Table(vec![(name, node)]), settings),
        _ => Err(FormatError { line: 0, reason: "it is no XML" }),
    }
}

fn element(start: &BytesStart<'_>, depth: usize, count: &mut Count) -> Result<Element, &'static str> {
    count.one(depth)?;
    let mut within = Vec::new();
    // Whether one stands there twice is not checked by the reader, which would take the square of their number: the tree shows it.
    for attribute in start.attributes().with_checks(false) {
        let attribute = attribute.map_err(|_| "it is no XML")?;
        count.one(depth)?;
        within.push((format!("@{}", attribute.key.as_ref()), Node::Scalar(unescaped(&attribute.value))));
    }
    Ok(Element { name: start.name().as_ref().to_owned(), within, text: String::new() })
}

fn close(element: Element, open: &mut [Element], root: &mut Option<(String, Node)>) -> Result<(), &'static str> {
    let Element { name, within, text } = element;
    let text = text.trim();
    let node = if within.is_empty() {
        Node::Scalar(text.to_owned())
    } else {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut places: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
        for (key, value) in within {
            // An attribute that stands twice is a conflict, which the tree tells; elements are a list.
            match places.get(&key).filter(|_| !key.starts_with('@')) {
                Some(&place) => match &mut entries[place].1 {
                    Node::List(list) => list.push(value),
                    first => {
                        let alone = std::mem::replace(first, Node::List(Vec::new()));
                        *first = Node::List(vec![alone, value]);
                    }
                },
                None => {
                    places.insert(key.clone(), entries.len());
                    entries.push((key, value));
                }
            }
        }
        if !text.is_empty() {
            entries.push(("text()".to_owned(), Node::Scalar(text.to_owned())));
        }
        Node::Table(entries)
    };
    match open.last_mut() {
        Some(parent) => parent.within.push((name, node)),
        None if root.is_none() => *root = Some((name, node)),
        None => return Err("a second root stands in it"),
    }
    Ok(())
}

/// The five entities that XML itself knows and characters by number; others stay as they are written.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        // Longer than any of them: not looked for, or `&&&…` would take the square of its length.
        let end = rest.bytes().take(12).position(|byte| byte == b';');
        let reference = end.and_then(|end| Some((end, character(&rest[1..end])?)));
        match reference {
            Some((end, c)) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn character(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::nested_tests::{refused, told};

    #[test]
    fn elements_and_attributes_are_told_by_their_path() {
        let text = "<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY a \"b\">]>\n<!-- c --><Server port=\"8005\"><Connector port='8080' secret=\"s &amp; t\"/><Connector port='8443'/>\n<user id='1'><name>bob</name></user><user id='2'><name>&a;&#x65;ve</name></user><role>x</role><role>y</role><note k='v'>text<![CDATA[<raw>]]></note><none/></Server>";
        insta::assert_snapshot!(told(Format::Xml, text));
    }

    #[test]
    fn hostile_documents_end() {
        for text in [
            "<a>".repeat(1 << 18),
            "<".repeat(1 << 20),
            format!("{}{}", "<a>".repeat(40), "</a>".repeat(40)),
            "<a></b>".to_owned(),
            "<a/><b/>".to_owned(),
            "<!DOCTYPE a [".to_owned(),
        ] {
            refused(Format::Xml, &text);
        }
        let laughs = format!(
            "<!DOCTYPE l [<!ENTITY a \"x\">{}]><l>&z20;</l>",
            (0..20).map(|n| format!("<!ENTITY z{n} \"&a;&a;&a;&a;\">")).collect::<String>()
        );
        assert_eq!(told(Format::Xml, &laughs), "config.l: \"&z20;\"\n");
        assert!(told(Format::Xml, "<a b='1' b='2'>&#27;</a>").contains("conflict.a.@b"));
        told(Format::Xml, &format!("<a>{}</a>", "&amp".repeat(1 << 17)));
    }
}
