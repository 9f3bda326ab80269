//! Apache's configuration (httpd.apache.org, "Configuration Files"): directives by the sections around them,
//! `<VirtualHost *:80> example.org.DocumentRoot`. Names have no case and are told as Apache's manual spells them, unknown ones in lower case; a line that ends in `\`
//! goes on in the next. The last of a directive counts and a conflict is shown; of those that Apache lets stand several times all
//! count, in their order. Conditions and rules of mod_rewrite are one list, because one belongs to the next.

use super::blocks::{self, Block, Statement};
use super::{FormatError, Repeat, Settings};

/// Directives that may stand several times, as the manual spells them.
const SEVERAL: &[&str] = &[
    "AddCharset",
    "AddEncoding",
    "AddHandler",
    "AddLanguage",
    "AddOutputFilterByType",
    "AddType",
    "Alias",
    "AliasMatch",
    "Allow",
    "AuthUserFile",
    "BrowserMatch",
    "CustomLog",
    "Deny",
    "ErrorDocument",
    "ExpiresByType",
    "Header",
    "Include",
    "IncludeOptional",
    "IndexIgnore",
    "Listen",
    "LoadModule",
    "LogFormat",
    "PassEnv",
    "ProxyPass",
    "ProxyPassMatch",
    "ProxyPassReverse",
    "Redirect",
    "RedirectMatch",
    "RequestHeader",
    "Require",
    "RewriteMap",
    "ScriptAlias",
    "ScriptAliasMatch",
    "ServerAlias",
    "SetEnvIf",
    "SetEnvIfNoCase",
    "SetHandler",
    "Substitute",
    "UnsetEnv",
    "Use",
];

/// Other directives that are often set.
const SPELLED: &[&str] = &[
    "AccessFileName",
    "AddDefaultCharset",
    "AllowMethods",
    "AllowOverride",
    "AuthBasicProvider",
    "AuthName",
    "AuthType",
    "DirectoryIndex",
    "DirectorySlash",
    "DocumentRoot",
    "EnableSendfile",
    "ErrorLog",
    "FileETag",
    "Group",
    "HostnameLookups",
    "HttpProtocolOptions",
    "KeepAlive",
    "KeepAliveTimeout",
    "LimitRequestBody",
    "LimitRequestFields",
    "LogLevel",
    "MaxConnectionsPerChild",
    "MaxKeepAliveRequests",
    "MaxRequestWorkers",
    "Mutex",
    "Options",
    "Order",
    "PidFile",
    "Protocols",
    "ProxyPreserveHost",
    "ProxyRequests",
    "RewriteBase",
    "RewriteEngine",
    "ServerAdmin",
    "ServerName",
    "ServerRoot",
    "ServerSignature",
    "ServerTokens",
    "SSLCACertificateFile",
    "SSLCertificateChainFile",
    "SSLCertificateFile",
    "SSLCertificateKeyFile",
    "SSLCipherSuite",
    "SSLCompression",
    "SSLEngine",
    "SSLHonorCipherOrder",
    "SSLOptions",
    "SSLProtocol",
    "SSLSessionTickets",
    "SSLVerifyClient",
    "SSLVerifyDepth",
    "StartServers",
    "Timeout",
    "TraceEnable",
    "UseCanonicalName",
    "User",
];

/// Directives whose first argument is the name of what they set.
const NAMED: &[&str] = &["Define", "SetEnv"];

const SECTIONS: &[&str] = &[
    "Directory",
    "DirectoryMatch",
    "Else",
    "ElseIf",
    "Files",
    "FilesMatch",
    "If",
    "IfDefine",
    "IfModule",
    "IfVersion",
    "Limit",
    "LimitExcept",
    "Location",
    "LocationMatch",
    "Macro",
    "Proxy",
    "ProxyMatch",
    "RequireAll",
    "RequireAny",
    "RequireNone",
    "VirtualHost",
];

pub(super) fn covers(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/etc/apache2/").or_else(|| path.strip_prefix("/etc/httpd/")) else { return false };
    rest.ends_with(".conf") || (rest.starts_with("mods-") && rest.ends_with(".load"))
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    let root = tree(text)?;
    blocks::take(
        &root,
        "",
        settings,
        &|_, statement, settings, path| {
            let (name, arguments) = (statement.name.as_str(), statement.arguments.join(" "));
            if name == "RewriteCond" || name == "RewriteRule" {
                settings.take(Repeat::Ordered, &blocks::joined(path, "RewriteRule"), &format!("{name} {arguments}"));
            } else if let (true, Some((first, rest))) = (NAMED.contains(&name), statement.arguments.split_first()) {
                settings.take(Repeat::Last, &blocks::joined(path, &format!("{name} {first}")), &rest.join(" "));
            } else if let (true, Some(at)) = (name == "Header" || name == "RequestHeader", header(&statement.arguments)) {
                let mut rest = statement.arguments.clone();
                let header = rest.remove(at);
                settings.take(Repeat::Ordered, &blocks::joined(path, &format!("{name} {header}")), &rest.join(" "));
            } else {
                let repeat = if SEVERAL.contains(&name) { Repeat::Ordered } else { Repeat::Last };
                settings.take(repeat, &blocks::joined(path, name), &arguments);
            }
        },
        &label,
    )
}

/// Which argument is the header that is set or taken away.
fn header(arguments: &[String]) -> Option<usize> {
    let at = usize::from(arguments.first().is_some_and(|first| matches!(first.as_str(), "always" | "onsuccess" | "early"))) + 1;
    (at < arguments.len()).then_some(at)
}

fn label(statement: &Statement, block: &Block) -> Vec<String> {
    let server = block.statements.iter().find(|inner| inner.name == "ServerName").and_then(|inner| inner.arguments.first());
    match server {
        Some(server) if statement.name.starts_with("<VirtualHost") => vec![server.clone()],
        _ => vec![String::new()],
    }
}

fn spelled(name: &str, tables: &[&[&str]]) -> String {
    let found = tables.iter().copied().flatten().find(|known| known.eq_ignore_ascii_case(name));
    found.map_or_else(|| name.to_ascii_lowercase(), |known| (*known).to_owned())
}

fn tree(text: &str) -> Result<Block, FormatError> {
    let mut open: Vec<(String, Statement, Block)> = Vec::new();
    let mut block = Block::default();
    let mut lines = text.lines().zip(1..);
    while let Some((first, line)) = lines.next() {
        let fail = |reason| FormatError { line, reason };
        let mut whole = first.trim().to_owned();
        // A comment goes on in the next line too.
        while let Some(cut) = whole.strip_suffix('\\').map(str::len) {
            whole.truncate(cut);
            match lines.next() {
                Some((next, _)) => whole.push_str(next.trim_end()),
                None => break,
            }
        }
        let whole = whole.trim();
        if whole.is_empty() || whole.starts_with('#') {
            continue;
        }
        if let Some(name) = whole.strip_prefix("</") {
            let name = name.trim_end_matches('>').trim().to_ascii_lowercase();
            let (opened, mut statement, outer) = open.pop().ok_or_else(|| fail("a section ends that did not begin"))?;
            if opened != name {
                return Err(fail("a section ends within another"));
            }
            statement.block = Some(std::mem::replace(&mut block, outer));
            block.statements.push(statement);
        } else if let Some(inner) = whole.strip_prefix('<') {
            let inner = inner.strip_suffix('>').ok_or_else(|| fail("a `>` is missing"))?.trim();
            let (name, arguments) = inner.split_once(char::is_whitespace).unwrap_or((inner, ""));
            if open.len() >= super::DEPTH {
                return Err(fail("sections are nested more than 32 deep"));
            }
            let mut called = format!("<{}", spelled(name, &[SECTIONS]));
            for word in words(arguments) {
                called.push(' ');
                called.push_str(&word);
            }
            called.push('>');
            let statement = Statement { name: called, arguments: Vec::new(), block: None };
            open.push((name.to_ascii_lowercase(), statement, std::mem::take(&mut block)));
        } else {
            let (name, arguments) = whole.split_once(char::is_whitespace).unwrap_or((whole, ""));
            let name = spelled(name, &[SEVERAL, SPELLED, NAMED, &["RewriteCond", "RewriteRule"]]);
            block.statements.push(Statement { name, arguments: words(arguments), block: None });
        }
    }
    match open.is_empty() {
        true => Ok(block),
        false => Err(FormatError { line: 0, reason: "a section does not end" }),
    }
}

/// Words between blanks, or between quotes, in which `\` stands before a quote.
fn words(arguments: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = arguments.trim_start();
    while let Some(first) = rest.chars().next() {
        let mut word = String::new();
        if first == '"' || first == '\'' {
            let mut characters = rest.char_indices().skip(1).peekable();
            let mut end = rest.len();
            while let Some((at, c)) = characters.next() {
                match c {
                    '\\' if characters.peek().is_some_and(|(_, next)| *next == first) => {
                        word.extend(characters.next().map(|(_, next)| next))
                    }
                    c if c == first => {
                        end = at + 1;
                        break;
                    }
                    c => word.push(c),
                }
            }
            rest = rest[end..].trim_start();
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            word.push_str(&rest[..end]);
            rest = rest[end..].trim_start();
        }
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::nested_tests::{refused, told};

    #[test]
    fn directives_are_told_by_their_sections() {
        let text = "# comment \\\nstill comment\nServerTokens Prod\nservertokens Full\nListen 80\nLISTEN 443\nTimeout \\\n  300\nDefine SRVROOT \"/srv\"\nUnknownThing x\n<IfModule mod_ssl.c>\n<virtualhost *:443>\n  ServerName example.org\n  ServerAlias a b\n  DocumentRoot \"/srv/a \\\"b\\\"\"\n  SetEnv DB_PASSWORD x\n  RewriteCond %{HTTPS} off\n  RewriteRule ^(.*)$ https://x/$1 [R]\n  <Directory /srv>\n    Options -Indexes\n    Require all granted\n  </Directory>\n</VirtualHost>\n<VirtualHost *:443>\n  ServerName other.org\n</VirtualHost>\n<VirtualHost *:443>\n  ErrorLog /x\n</VirtualHost>\n<VirtualHost *:443>\n  ErrorLog /y\n</VirtualHost>\n</IfModule>\n";
        insta::assert_snapshot!(told(Format::Apache, text));
    }

    #[test]
    fn hostile_files_end() {
        for text in ["<a>\n".repeat(1 << 18), "<".repeat(1 << 20), "</a>".to_owned(), "<a>\n<b>\n</a>\n</b>".to_owned(), "<a>\n".to_owned()]
        {
            refused(Format::Apache, &text);
        }
        told(Format::Apache, &"\\\n".repeat(1 << 19));
        told(Format::Apache, &format!("a {}", "\"\\\"".repeat(1 << 18)));
        assert!(told(Format::Apache, &"<a>\nb 1\n</a>\n".repeat(50_000)).contains("config_left_out"));
        assert!(told(Format::Apache, "a \u{1b}[31m").contains("\\\\x1b[31m"));
    }
}
