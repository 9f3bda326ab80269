//! nginx's configuration (nginx.org, "Configuration file's structure"): directives by the blocks around them,
//! `http.server example.org.listen`. What a directive says counts once; of those that nginx lets stand several times all count, in
//! their order, and of any other a second with another value is a conflict, which nginx itself refuses.
//!
//! A block is named by its arguments, a server by its first `server_name` (and `listen`, where several have that name), and what is alike still
//! by its place: `location / #2`. Directives that set one thing of many by name have it in theirs: `proxy_set_header Host`.

use super::blocks::{self, Block, Statement};
use super::{FormatError, Repeat, Settings};
use crate::redact;

/// Directives that may stand several times in one block.
const SEVERAL: &[&str] = &[
    "access_log",
    "env",
    "error_log",
    "error_page",
    "fastcgi_cache_path",
    "fastcgi_hide_header",
    "fastcgi_pass_header",
    "geoip_city",
    "geoip_country",
    "if_modified_since",
    "include",
    "limit_conn",
    "limit_req",
    "limit_req_zone",
    "limit_conn_zone",
    "listen",
    "load_module",
    "map_hash",
    "proxy_cache_path",
    "proxy_cookie_domain",
    "proxy_cookie_path",
    "proxy_hide_header",
    "proxy_ignore_headers",
    "proxy_pass_header",
    "proxy_redirect",
    "proxy_cache_valid",
    "fastcgi_cache_valid",
    "resolver",
    "return",
    "rewrite",
    "server",
    "server_name",
    "set",
    "set_real_ip_from",
    "ssl_certificate",
    "ssl_certificate_key",
    "sub_filter",
    "uwsgi_hide_header",
];

/// Directives whose first argument is the name of what they set.
const NAMED: &[&str] = &[
    "add_header",
    "add_trailer",
    "fastcgi_param",
    "grpc_set_header",
    "log_format",
    "proxy_set_header",
    "scgi_param",
    "ssl_conf_command",
    "uwsgi_param",
    "auth_request_set",
];

/// Blocks in which each line is a name and what it stands for.
const TABLES: &[&str] = &["charset_map", "geo", "map", "split_clients", "types"];

pub(super) fn covers(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/etc/nginx/").or_else(|| path.strip_prefix("/usr/local/nginx/conf/")) else { return false };
    let is_params = matches!(rest, "fastcgi_params" | "mime.types" | "proxy_params" | "scgi_params" | "uwsgi_params");
    // A site has the name that its administrator likes; an editor's leftovers are told by their end.
    let is_site = rest.strip_prefix("sites-enabled/").or_else(|| rest.strip_prefix("sites-available/")).is_some_and(|name| {
        !name.is_empty()
            && !name.contains('/')
            && !name.ends_with('~')
            && !name.contains(".dpkg-")
            && !name.ends_with(".bak")
            && !name.starts_with('.')
    });
    rest.ends_with(".conf") || is_params || is_site
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    let root = tree(text)?;
    blocks::take(
        &root,
        "",
        settings,
        &|block, statement, settings, path| {
            let (name, mut arguments) = (statement.name.as_str(), statement.arguments.as_slice());
            // One list: the first that fits an address counts.
            if name == "allow" || name == "deny" {
                return settings.take(Repeat::Ordered, &blocks::joined(path, "access"), &format!("{name} {}", arguments.join(" ")));
            }
            let is_table = TABLES.contains(&block);
            // A table from API keys to whose they are: its names are the secrets.
            if is_table && path.split([' ', '$', '.']).any(redact::is_secret_name) {
                return settings.take(Repeat::Ordered, &blocks::joined(path, "secret"), &format!("{name} {}", arguments.join(" ")));
            }
            let mut path = blocks::joined(path, name);
            if NAMED.contains(&name)
                && let [first, rest @ ..] = arguments
            {
                path.push(' ');
                path.push_str(first);
                arguments = rest;
            }
            let repeat = if SEVERAL.contains(&name) || NAMED.contains(&name) { Repeat::Ordered } else { Repeat::Last };
            settings.take(if is_table { Repeat::Last } else { repeat }, &path, &arguments.join(" "));
        },
        &label,
    )
}

fn label(statement: &Statement, block: &Block) -> Vec<String> {
    let first =
        |name: &str| block.statements.iter().find(|statement| statement.name == name).and_then(|statement| statement.arguments.first());
    match (statement.name.as_str(), first("server_name"), first("listen")) {
        ("server", Some(name), listen) => {
            let with = listen.map(|listen| format!("{name} {listen}"));
            [name.clone()].into_iter().chain(with).collect()
        }
        ("server", None, Some(listen)) => vec![listen.clone()],
        _ => vec![statement.arguments.join(" ")],
    }
}

/// The statements of a file within each other.
fn tree(text: &str) -> Result<Block, FormatError> {
    let mut open: Vec<(Statement, Block)> = Vec::new();
    let mut block = Block::default();
    let mut words: Vec<String> = Vec::new();
    let mut words_line = 1;
    let mut reader = Reader { text, at: 0, line: 1 };
    let statement = |words: &mut Vec<String>| {
        let mut words = std::mem::take(words).into_iter();
        words.next().map(|name| Statement { name, arguments: words.collect(), block: None })
    };
    loop {
        let line = reader.line;
        let fail = |reason| FormatError { line, reason };
        match reader.next().map_err(fail)? {
            Token::Word(word) => {
                if words.is_empty() {
                    words_line = line;
                }
                words.push(word);
            }
            Token::End => block.statements.extend(Some(statement(&mut words).ok_or_else(|| fail("a `;` ends nothing"))?)),
            Token::Open if words.first().is_some_and(|name| name.ends_with("_by_lua_block")) => {
                let inner = reader.raw().map_err(fail)?.trim().to_owned();
                words.push(inner);
                block.statements.extend(statement(&mut words));
            }
            Token::Open => {
                let statement = statement(&mut words).ok_or_else(|| fail("a block has no name"))?;
                if open.len() >= super::DEPTH {
                    return Err(fail("blocks are nested more than 32 deep"));
                }
                open.push((statement, std::mem::take(&mut block)));
            }
            Token::Close if !words.is_empty() => return Err(FormatError { line: words_line, reason: "a `;` is missing" }),
            Token::Close => {
                let (mut statement, outer) = open.pop().ok_or_else(|| fail("a `}` closes nothing"))?;
                statement.block = Some(std::mem::replace(&mut block, outer));
                block.statements.push(statement);
            }
            Token::Eof if !words.is_empty() => return Err(FormatError { line: words_line, reason: "a `;` is missing" }),
            Token::Eof if !open.is_empty() => return Err(fail("a `}` is missing")),
            Token::Eof => return Ok(block),
        }
    }
}

enum Token {
    Word(String),
    /// `;`
    End,
    Open,
    Close,
    Eof,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Reader<'_> {
    fn take(&mut self) -> Option<char> {
        let c = self.text[self.at..].chars().next()?;
        self.at += c.len_utf8();
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn next(&mut self) -> Result<Token, &'static str> {
        loop {
            match self.take() {
                None => return Ok(Token::Eof),
                Some('#') => {
                    let length = self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at);
                    self.at += length;
                }
                Some(c) if c.is_ascii_whitespace() => {}
                Some(';') => return Ok(Token::End),
                Some('{') => return Ok(Token::Open),
                Some('}') => return Ok(Token::Close),
                Some(quote @ ('"' | '\'')) => return self.quoted(quote).map(Token::Word),
                Some(first) => return Ok(Token::Word(self.word(first))),
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, &'static str> {
        let mut word = String::new();
        loop {
            match self.take().ok_or("a quote is not closed")? {
                '\\' => match self.take().ok_or("a quote is not closed")? {
                    c if c == quote || c == '\\' => word.push(c),
                    c => word.extend(['\\', c]),
                },
                c if c == quote => return Ok(word),
                c => word.push(c),
            }
        }
    }

    fn word(&mut self, first: char) -> String {
        let mut word = String::from(first);
        let mut last = first;
        while let Some(c) = self.text[self.at..].chars().next() {
            // `${name}` is within the word.
            let ends = c.is_ascii_whitespace() || c == ';' || (c == '{' && last != '$');
            if ends && last != '\\' {
                break;
            }
            self.take();
            // What was escaped escapes nothing.
            last = if last == '\\' { ' ' } else { c };
            word.push(c);
        }
        word
    }

    /// What stands up to the brace that closes this block, in another language.
    fn raw(&mut self) -> Result<String, &'static str> {
        let (start, mut depth) = (self.at, 1_usize);
        while depth > 0 {
            match self.take().ok_or("a `}` is missing")? {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
        }
        Ok(self.text[start..self.at - 1].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::nested_tests::{refused, told};

    #[test]
    fn directives_are_told_by_their_blocks() {
        let text = "user www-data;\nworker_processes auto; # as many\ninclude /etc/nginx/modules-enabled/*.conf;\nevents { worker_connections 768; }\nhttp {\n  log_format main '$remote_addr \"$request\"';\n  map $http_upgrade $connection { default upgrade; '' close; }\n  upstream app { server 10.0.0.1:80 weight=2; server 10.0.0.2:80; }\n  server {\n    listen 80; server_name example.org www.example.org;\n    return 301 https://$host$request_uri;\n  }\n  server {\n    listen 443 ssl; listen [::]:443 ssl;\n    server_name example.org;\n    ssl_protocols TLSv1.2 TLSv1.3; ssl_protocols TLSv1.3;\n    add_header X-A 1; add_header X-A 2; add_header X-B \"a;b\";\n    location / { proxy_pass http://app/${uri}; proxy_set_header Host $host; }\n    location ~ \\.php$ { allow 10.0.0.0/8; deny all; }\n    location / { return 404; }\n    if ($a = b) { set $c 1; }\n    content_by_lua_block { ngx.say({1;}) }\n  }\n}\n";
        insta::assert_snapshot!(told(Format::Nginx, text));
    }

    #[test]
    fn hostile_files_end() {
        for text in [
            "{".repeat(1 << 20),
            "a {".repeat(1 << 18),
            "a".repeat(1 << 20),
            "\"".to_owned() + &"\\".repeat(1 << 19),
            "}".to_owned(),
            "a { b }".to_owned(),
            ";".to_owned(),
        ] {
            refused(Format::Nginx, &text);
        }
        assert!(told(Format::Nginx, &"a { b 1; }\n".repeat(50_000)).contains("config_left_out"));
        assert!(told(Format::Nginx, "a \u{1b}[31m;").contains("\\\\x1b[31m"));
    }

    #[test]
    fn only_nginx_own_files_are_covered() {
        for path in ["/etc/nginx/nginx.conf", "/etc/nginx/conf.d/a.conf", "/etc/nginx/sites-enabled/default", "/etc/nginx/mime.types"] {
            assert_eq!(Format::of(path), Some(Format::Nginx), "{path}");
        }
        for path in [
            "/etc/nginx/sites-enabled/default.dpkg-old",
            "/etc/nginx/sites-enabled/a~",
            "/etc/nginx/nginx.conf~",
            "/etc/nginx/koi-utf",
            "/srv/nginx.conf",
        ] {
            assert_ne!(Format::of(path), Some(Format::Nginx), "{path}");
        }
    }
}
