//! Netlink as the kernel writes it: messages in a datagram, attributes in a message. See linux/netlink.h.
//!
//! Invariant: every iterator ends with its bytes, whatever they are; what is cut short is left out.

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// What is not part of an attribute's number: nested, in network byte order.
const ATTRIBUTE_FLAGS: u16 = 0xc000;

/// A message without its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let body = rest.get(HEADER..length)?;
        let message = Message {
            kind: u16::from_ne_bytes([rest[4], rest[5]]),
            flags: u16::from_ne_bytes([rest[6], rest[7]]),
            sequence: u32::from_ne_bytes([rest[8], rest[9], rest[10], rest[11]]),
            body,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes, each by its number.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let [a, b, c, d] = *rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & !ATTRIBUTE_FLAGS, value))
    })
}

/// The first attribute of this number.
pub fn find(bytes: &[u8], number: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == number).map(|(_, value)| value)
}

/// A number in network byte order, as nearly all of netfilter's are.
pub fn number(bytes: &[u8], attribute: u16) -> Option<u64> {
    let value = find(bytes, attribute)?;
    (!value.is_empty() && value.len() <= 8).then(|| value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// A text, without the zero that ends it.
pub fn text(bytes: &[u8], attribute: u16) -> Option<&[u8]> {
    find(bytes, attribute).map(until_zero)
}

pub fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// An attribute as the kernel would write it.
#[cfg(test)]
pub fn attribute(number: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(number.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_found_whatever_flags_they_carry() {
        let bytes = [attribute(1, b"filter\0"), attribute(2 | 0x8000, &[0, 0, 1, 2])].concat();
        assert_eq!(text(&bytes, 1), Some(&b"filter"[..]));
        assert_eq!(number(&bytes, 2), Some(258));
        assert_eq!(find(&bytes, 3), None);
        assert_eq!(find(&bytes[..bytes.len() - 1], 2), None, "cut short");
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_it_ends(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4);
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER);
        }
    }
}
