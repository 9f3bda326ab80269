//! Work that grows faster than its input: each reader of texts is given the worst shapes there are of one length and of four times it.
//!
//! Time is all there is to tell it by, so the limit is generous and the best of several counts: in proportion it takes four times as
//! long, by its square sixteen times.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use trueline_agent::collect::unit::install;
use trueline_agent::collect::{group, package, rpm, user};
use trueline_drift::format::Format;
use trueline_drift::format::lines::{between, masked};
use trueline_drift::redact::RedactionKey;
use trueline_drift::transaction::{Zone, entries, summary};

use crate::host::{Host, SOURCES};

const LENGTH: usize = 8 * 1024;
const LONGER: usize = 4;
const MOST: u32 = 8;
/// Below it a clock tells nothing.
const LEAST: Duration = Duration::from_millis(2);
const ATTEMPTS: usize = 5;

type Shape = (String, Box<dyn Fn(usize) -> Vec<u8>>);

/// Checks every reader, and fails with all that are too slow.
pub fn check() {
    let host = Host::new();
    let mut tried = 0;
    let mut slow = Vec::new();
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/host");
    let seeds: Vec<Vec<u8>> = std::fs::read_dir(&seeds)
        .expect("the seeds of the target")
        .map(|entry| std::fs::read(entry.expect("a seed").path()).expect("a seed"))
        .collect();
    for (at, source) in SOURCES.iter().enumerate() {
        let sample = seeds.iter().find(|seed| usize::from(seed.first().copied().unwrap_or_default().wrapping_sub(b'0')) == at);
        let sample = sample.map_or(&[][..], |seed| &seed[1..]);
        for (name, shape) in shapes(sample) {
            let time = |length| host.with(source, &shape(length), |read| timed(|| drop(black_box(read()))));
            tried += 1;
            slow.extend(trouble(time).map(|trouble| format!("{}: {name}: {trouble}", source.1)));
        }
    }
    for format in Format::ALL {
        for (name, shape) in shapes(sample_of(*format)) {
            let time = |length| {
                let bytes = shape(length);
                timed(|| drop(black_box(format.read(&bytes).map(|settings| settings.fields(|_, value| value.to_owned())))))
            };
            tried += 1;
            slow.extend(trouble(time).map(|trouble| format!("format {}: {name}: {trouble}", format.name())));
        }
    }
    for (reader, sample, read) in READERS {
        for (name, shape) in shapes(sample) {
            let time = |length| {
                let bytes = shape(length);
                timed(|| read(&bytes))
            };
            tried += 1;
            slow.extend(trouble(time).map(|trouble| format!("{reader}: {name}: {trouble}")));
        }
    }
    assert!(slow.is_empty(), "{} of {tried} grow faster than their input:\n{}", slow.len(), slow.join("\n"));
    println!("none of {tried} shapes grows faster than its length");
}

type Reader = (&'static str, &'static [u8], fn(&[u8]));

/// Readers that no source and no format leads to.
const READERS: &[Reader] = &[
    ("passwd", b"alice:x:1000:1000::/home/alice:/bin/sh\n", |bytes| drop(black_box(user::parse(bytes, Ok(bytes), &key())))),
    ("group", b"sudo:x:27:alice,bob\n", |bytes| drop(black_box(group::parse(bytes, Ok(bytes), &key())))),
    ("dpkg", b"Package: bash\nStatus: install ok installed\nVersion: 5.2\nArchitecture: amd64\nConffiles:\n /etc/x 0a\n\n", |bytes| {
        drop(black_box(package::parse(bytes)));
    }),
    ("lines", b"a = b\n-----BEGIN PRIVATE KEY-----\npassword: |\n  c \\\n", |bytes| {
        let lines = masked(bytes, &key());
        drop(black_box(lines.map(|lines| between(&lines[lines.len() / 2..], &lines))));
    }),
    ("rpm", b"bash\t5.2\tx86_64\n", |bytes| drop(black_box(rpm::parse(bytes)))),
    ("unit", b"[Install]\nWantedBy=multi-user.target \\\n x.target\nAlso=a.socket\n", |bytes| drop(black_box(install(bytes)))),
    (
        "apt's history",
        b"Start-Date: 2026-02-12  10:30:01\nCommandline: apt upgrade\nInstall: a:amd64 (1), b:amd64 (2)\nEnd-Date: 2026-02-12  10:30:02\n\n",
        |bytes| drop(black_box(entries(bytes, &Zone::UTC))),
    ),
    ("Puppet's summary", b"---\nversion:\n  config: 1770892201\nresources:\n  changed: 1\n", |bytes| drop(black_box(summary(bytes)))),
];

fn key() -> RedactionKey {
    RedactionKey::new([7; 32])
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// `None` where the longer text took no more than it may.
fn trouble(time: impl Fn(usize) -> Duration) -> Option<String> {
    let (mut short, mut long) = (Duration::MAX, Duration::MAX);
    for _ in 0..ATTEMPTS {
        short = short.min(time(LENGTH));
        long = long.min(time(LONGER * LENGTH));
        if long <= short.max(LEAST) * MOST {
            return None;
        }
    }
    Some(format!("{short:?} for {LENGTH} bytes, and {long:?} for {LONGER} times as many"))
}

/// What a line goes on with, again and again.
const PARTS: &[&str] = &[
    "a",
    " ",
    ",",
    ":",
    "=",
    "#",
    "\\",
    "\"",
    "'",
    "[",
    "]",
    "(",
    "{",
    "}",
    "<",
    ">",
    "<a>",
    "${",
    "$",
    ";",
    "@",
    "/",
    "|",
    "-",
    "%",
    "*",
    "!",
    "\t",
    "\r",
    "\u{1b}",
    "\u{e9}",
    " a",
    ",a",
    "a=",
    " a=b",
    ":a=",
    "\\\"",
    "\\ ",
    "{\"a\":",
    "a:",
    "a: \n",
    "- ",
    "-----BEGIN ",
    "[a",
    "@a",
];

/// Shapes of any length: what a text of this kind begins with and then one part for ever, and its lines and words again and again.
fn shapes(sample: &[u8]) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    let lines: Vec<Vec<u8>> = sample.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
    let first = lines.iter().find(|line| line[0] != b'#').cloned().unwrap_or_default();
    for part in PARTS {
        let first = first.clone();
        shapes.push((
            format!("the first line and {part:?} for ever"),
            Box::new(move |length| repeated(&first, length, |_| part.as_bytes().to_vec())),
        ));
        shapes.push((format!("{part:?} for ever"), Box::new(move |length| repeated(b"", length, |_| part.as_bytes().to_vec()))));
        shapes.push((format!("lines of {part:?}"), Box::new(move |length| repeated(b"", length, |_| [part.as_bytes(), b"\n"].concat()))));
    }
    let whole = sample.to_vec();
    shapes.push(("the same again and again".to_owned(), Box::new(move |length| repeated(b"", length, |_| whole.clone()))));
    for line in lines.iter().take(8).cloned() {
        let shown = String::from_utf8_lossy(&line).into_owned();
        let (same, numbered, one, continued) = (line.clone(), line.clone(), line.clone(), line);
        shapes.push((format!("lines {shown:?}"), Box::new(move |length| repeated(b"", length, |_| [same.as_slice(), b"\n"].concat()))));
        shapes.push((
            format!("numbered lines {shown:?}"),
            Box::new(move |length| repeated(b"", length, |number| [numbered.as_slice(), format!("{number}\n").as_bytes()].concat())),
        ));
        shapes.push((format!("one line of {shown:?}"), Box::new(move |length| repeated(b"", length, |_| one.clone()))));
        shapes.push((
            format!("continued lines {shown:?}"),
            Box::new(move |length| repeated(b"", length, |_| [continued.as_slice(), b" \\\n"].concat())),
        ));
    }
    for between in [" ", ",", ":", "=", ", ", "\n"] {
        let first = first.clone();
        let word = move |number: usize| format!("{between}w{number}").into_bytes();
        shapes.push((format!("the first line and words behind {between:?}"), Box::new(move |length| repeated(&first, length, word))));
    }
    shapes
}

/// `first`, and parts behind it until there are so many bytes.
fn repeated(first: &[u8], length: usize, part: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = first.to_vec();
    for number in 0.. {
        let part = part(number);
        if bytes.len() + part.len() > length || part.is_empty() {
            break;
        }
        bytes.extend(part);
    }
    bytes
}

/// A few lines of each format.
fn sample_of(format: Format) -> &'static [u8] {
    match format {
        Format::KeyValue => b"export PATH=\"/usr/bin:/bin\"\n",
        Format::Fstab => b"UUID=0a / ext4 errors=remount-ro,noatime 0 1\n",
        Format::Group | Format::Gshadow => b"sudo:x:27:alice,bob\n",
        Format::Hosts => b"127.0.0.1 localhost here\n",
        Format::Limits => b"alice hard nofile 1024\n",
        Format::LoginDefs => b"UMASK 022\n",
        Format::Nsswitch => b"passwd: files systemd\n",
        Format::Passwd | Format::Shadow => b"alice:x:1000:1000::/home/alice:/bin/sh\n",
        Format::ResolvConf => b"nameserver 192.0.2.1\noptions edns0 trust-ad\nsearch example.org\n",
        Format::SshdConfig => b"PermitRootLogin no\nMatch User bob\n  X11Forwarding yes\n",
        Format::Sysctl => b"net.ipv4.ip_forward = 1\n",
        Format::Modprobe => b"install usb-storage /bin/true\n",
        Format::Pam => b"auth required pam_unix.so nullok\n@include common-auth\n",
        Format::Unit => b"[Service]\nExecStart=/bin/x \\\n  y\nEnvironment=A=b\n",
        Format::Json => b"{\"a\": [1, {\"b\": \"c\"}]}\n",
        Format::Yaml => b"a:\n  - b: c\n    d: &e [f, g]\n    h: *e\n",
        Format::Toml => b"[a.b]\nc = [1, 2]\n[[d]]\ne.f = \"g\"\n",
        Format::Xml => b"<a b=\"c\"><d>e &amp; f</d><!-- g --></a>\n",
        Format::Nginx => b"server { listen 80; location / { return 200 \"a\"; } }\n",
        Format::Apache => b"<VirtualHost *:80>\n  ServerName a\n</VirtualHost>\n",
        Format::Logrotate => b"/var/log/a {\n  weekly\n  postrotate\n    b\n  endscript\n}\n",
        Format::Rsyslog => b"action(type=\"omfile\" file=\"/a\")\n*.info /var/log/b\n",
        Format::Crontab => b"MAILTO=root\n17 * * * * root /bin/x\n",
        Format::Sudoers => b"User_Alias OPS = alice, bob : WEB = carol\nOPS ALL=(ALL) NOPASSWD: /bin/ls\n",
        Format::AptSources => b"deb [arch=amd64] http://deb.debian.org/debian bookworm main\n",
        Format::Text => b"welcome\n",
        Format::AptStanzas => b"Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: main\n\n",
    }
}
