use proptest::prelude::*;

use super::*;

/// One argument a blank, but for what stands between `{` and `}`.
fn split(line: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (argument, after) = match rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}').expect("a closing brace"),
            None => rest.split_once(' ').map_or((rest, ""), |(argument, after)| (argument, after)),
        };
        arguments.push(argument.to_owned());
        rest = after.strip_prefix(' ').filter(|_| rest.starts_with('{')).unwrap_or(after);
    }
    arguments
}

fn redacted(line: &str) -> String {
    let shown = |argument: &String| if argument.contains(' ') { format!("{{{argument}}}") } else { argument.clone() };
    arguments(&split(line)).iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// `*` stands for a mask. In the left line every secret is `pw`, or begins with it.
const MASKED: &[(&str, &str)] = &[
    // Names that speak for themselves, with any program.
    ("tool --password=pw file", "tool --password=* file"),
    ("tool --pass=pw", "tool --pass=*"),
    ("tool --api-token pw file", "tool --api-token * file"),
    ("tool --password -pw7 --host h", "tool --password * --host h"),
    ("tool --token --pW3", "tool --token *"),
    ("tool -password pw", "tool -password *"),
    ("tool --accountKey=pw --private-key=pw", "tool --accountKey=* --private-key=*"),
    ("tool {--password=pw with blanks & more}", "tool --password=*"),
    ("env TOKEN=pw cmd", "env TOKEN=* cmd"),
    ("env PGPASSWORD=pw MYSQL_PWD=pw psql", "env PGPASSWORD=* MYSQL_PWD=* psql"),
    ("docker run -e POSTGRES_PASSWORD=pw -p 80:80 img", "docker run -e POSTGRES_PASSWORD=* -p 80:80 img"),
    ("java -Djavax.net.ssl.keyStorePassword=pw Main", "java -Djavax.net.ssl.keyStorePassword=* Main"),
    ("keytool -list -storepass pw -v", "keytool -list -storepass * -v"),
    ("mount -o username=bob,password=pw,uid=0 //h/s /mnt", "mount -o username=bob,password=*,uid=0 //h/s /mnt"),
    ("kubectl create secret generic s --from-literal=password=pw", "kubectl create secret generic s --from-literal=password=*"),
    ("aws configure set aws_secret_access_key pw", "aws configure set aws_secret_access_key *"),
    ("npm config set _authToken pw", "npm config set _authToken *"),
    ("psql {host=h password=pw dbname=d}", "psql {host=h password=* dbname=d}"),
    // Headers, documents, URLs.
    ("curl -H {Authorization: Bearer pw} https://h/", "curl -H {Authorization: *} https://h/"),
    ("curl -H {X-Api-Key: pw} -H {Cookie: pw=1; pw=2} h", "curl -H {X-Api-Key: *} -H {Cookie: *} h"),
    ("wget {--header=Authorization: Basic pw==} h", "wget {--header=Authorization: *} h"),
    ("curl -d user=bob&password=pw&x=1 h", "curl -d user=bob&password=*&x=1 h"),
    ("curl -d \"password\":\"pw\",\"user\":\"bob\" h", "curl -d \"password\":\"*\",\"user\":\"bob\" h"),
    ("git clone https://bob:pw@example.org/x", "git clone https://bob:*@example.org/x"),
    ("tool a=https://a:pw@h/1,b=https://c:pw@h/2", "tool a=https://a:*@h/1,b=https://c:*@h/2"),
    ("tool {https://a:pw@h redis://:pw@h:6379/0}", "tool {https://a:*@h redis://:*@h:6379/0}"),
    ("tool https://a:pw/x@h/path", "tool https://a:*@h/path"),
    ("curl https://h/x?token=pw&page=2", "curl https://h/x?token=*&page=2"),
    ("curl https://h/x?key=pw&page=2", "curl https://h/x?key=*&page=2"),
    // Options of known programs.
    ("curl -u bob:pw h", "curl -u bob:* h"),
    ("curl -sSubob:pw h", "curl -sSubob:* h"),
    ("curl -fsu bob:pw -o out h", "curl -fsu bob:* -o out h"),
    ("curl --user bob:pw --proxy-user=bob:pw h", "curl --user bob:* --proxy-user=bob:* h"),
    ("sshpass -p pw ssh -p 2222 host", "sshpass -p * ssh -p 2222 host"),
    ("sshpass -ppw scp -p a h:", "sshpass -p* scp -p a h:"),
    ("/usr/bin/mysql -ppw -u root db", "/usr/bin/mysql -p* -u root db"),
    ("mysqldump -uroot -ppw --all-databases", "mysqldump -uroot -p* --all-databases"),
    ("openssl rsa -in k -passin pass:pw -out o", "openssl rsa -in k -passin pass:* -out o"),
    ("openssl enc -aes-256-cbc -k pw -in f", "openssl enc -aes-256-cbc -k * -in f"),
    ("redis-cli -h h -a pw info", "redis-cli -h h -a * info"),
    ("redis-cli config set requirepass pw", "redis-cli config set requirepass *"),
    ("ldapsearch -x -D cn=a -w pw -b dc=x", "ldapsearch -x -D cn=a -w * -b dc=x"),
    ("smbclient //h/s -U bob%pw", "smbclient //h/s -U bob%*"),
    ("zip -rP pw a.zip a", "zip -rP * a.zip a"),
    ("7z x -ppw a.7z", "7z x -p* a.7z"),
    ("htpasswd -bc /etc/h bob pw", "htpasswd -bc /etc/h bob *"),
    ("rabbitmqctl add_user bob pw", "rabbitmqctl add_user bob *"),
    ("useradd -m -p pw bob", "useradd -m -p * bob"),
    ("docker login -u bob -p pw registry", "docker login -u bob -p * registry"),
    ("nmcli dev wifi connect net password pw", "nmcli dev wifi connect net password *"),
    ("vault login pw", "vault login *"),
    ("xfreerdp /u:bob /p:pw /v:h", "xfreerdp /u:bob /p:* /v:h"),
    // Commands within commands.
    ("sudo -u root mysql -ppw", "sudo -u root mysql -p*"),
    ("sudo -u mysql sshpass -p pw ssh h", "sudo -u mysql sshpass -p * ssh h"),
    ("sudo -nu mysql -g zip sshpass -p pw ssh h", "sudo -nu mysql -g zip sshpass -p * ssh h"),
    ("sudo --user mysql sshpass -p pw ssh h", "sudo --user mysql sshpass -p * ssh h"),
    ("sudo --user=mysql -- sshpass -p pw ssh h", "sudo --user=mysql -- sshpass -p * ssh h"),
    ("doas -u mysql sshpass -p pw ssh h", "doas -u mysql sshpass -p * ssh h"),
    ("runuser -u mysql -- sshpass -p pw ssh h", "runuser -u mysql -- sshpass -p * ssh h"),
    ("su -s /bin/sh -c {sshpass -p pw ssh h} mysql", "su -s /bin/sh -c {sshpass -p * ssh h} mysql"),
    ("su mysql {--command=sshpass -p pw ssh h}", "su mysql {--command=sshpass -p * ssh h}"),
    ("runuser {--command=sshpass -p pw ssh h} mysql", "runuser {--command=sshpass -p * ssh h} mysql"),
    ("tool secrets:/Hidden/pw password:/pw", "tool secrets:* password:*"),
    ("docker exec db mysql -uroot -ppw", "docker exec db mysql -uroot -p*"),
    ("find / -exec mysql -ppw ;", "find / -exec mysql -p* ;"),
    ("sh -c {mysql -ppw -e 'show tables'}", "sh -c {mysql -p* -e 'show tables'}"),
    ("sh -c {tool --password pw}", "sh -c {tool --password *}"),
    ("bash -c {cd /x && PGPASSWORD=pw psql; curl -u bob:pw h}", "bash -c {cd /x && PGPASSWORD=* psql; curl -u bob:* h}"),
    ("sh -c {PASSWORD=pw;mysql -ppw}", "sh -c {PASSWORD=*;mysql -p*}"),
    ("sh -c {x=$(curl -u bob:pw h) && mysql -u $(whoami) -ppw}", "sh -c {x=$(curl -u bob:* h) && mysql -u $(whoami) -p*}"),
    ("sh -c {echo `curl -u bob:pw h`}", "sh -c {echo `curl -u bob:* h`}"),
    ("sh -c {curl -H \"Authorization: Bearer pw\" https://h}", "sh -c {curl -H \"Authorization: *\" https://h}"),
    ("sh -c {bash -c \"sh -c 'curl -u bob:pw h'\"}", "sh -c {bash -c \"sh -c 'curl -u bob:* h'\"}"),
    ("ssh -p 22 host {mysql -ppw -u root}", "ssh -p 22 host {mysql -p* -u root}"),
    ("sh -c {echo root:pw | chpasswd}", "sh -c {echo * | chpasswd}"),
    ("sh -c {echo pw | sudo -S id}", "sh -c {echo * | sudo -S id}"),
    ("sh -c {echo pw | docker login --password-stdin}", "sh -c {echo * | docker login --password-stdin}"),
    ("bash -c {passwd --stdin bob <<< pw}", "bash -c {passwd --stdin bob <<< *}"),
    ("bash -c {a\\x0amysql -ppw\\x0ab}", "bash -c {a\\x0amysql -p*\\x0ab}"),
    ("mysql -e {CREATE USER bob IDENTIFIED BY 'pw'; SELECT 1}", "mysql -e {CREATE USER bob IDENTIFIED BY *; SELECT 1}"),
    ("psql -c {ALTER USER bob PASSWORD 'pw'}", "psql -c {ALTER USER bob PASSWORD *}"),
];

const READABLE: &[&str] = &[
    "tool -p 22 -u bob",
    "ssh -p 2222 host uptime",
    "mkdir -p /x",
    "cp -u a b",
    "cp -p /etc/hosts https://example.org/a@b",
    "tar -xpf x",
    "tar -C /var/lib/mysql -pxf x",
    "sudo tar -C /var/lib/mysql -pxf x",
    "sudo -u mysql tar -pxf x",
    "sudo --user mysql tar -pxf x",
    "sudo -p asks -u bob tar -pxf x",
    "runuser -u mysql -- tar -pxf x",
    "docker run -v secrets:/run/secrets img",
    "docker run -v secrets:/run/secrets:ro,z img",
    "scp passwords:/etc/shadow /tmp",
    "nc -u host 53",
    "docker run --name web -p 80:80 nginx",
    "docker build --secret id=s,src=/x .",
    "mysql -u root -p db",
    "mysql -P 3306 -h h",
    "psql --password db",
    "tool --password-file /run/pw --token-path=/x",
    "tool --no-password host",
    "gh auth login --with-token x",
    "tool --password --verbose host",
    "tool --password -v host",
    "env PWD=/home/bob OLDPWD=/ make",
    "env ALLOW_EMPTY_PASSWORD=yes GOOGLE_APPLICATION_CREDENTIALS=/etc/g.json run",
    "ansible-playbook --private-key=/root/.ssh/id -k site.yml",
    "ssh -o PasswordAuthentication=no git@example.org",
    "git clone ssh://git@example.org:22/x https://example.org:8080/a@b",
    "openssl x509 -in /etc/ssl/cert.pem -passin env:X",
    "openssl rand -hex 32",
    "curl -o token.txt -u bob https://h/",
    "curl -fsSL https://h/install.sh",
    "vi /etc/passwd /etc/secret/token",
    "usermod -aG secret bob",
    "systemctl restart token.service",
    "passwd bob",
    "sed -i s/a/b/ /etc/shadow",
    "apt-get install -y mysql-server -p",
    "grep -u mysql -pfoo",
    "7z x a.7z",
    "rsync -avp --password-file=/x a b::m",
    "bash -c {mkdir -p /x && cp -u a b; ssh -p 22 h 'tar -xpf x'}",
    "bash -c {echo 'evil:x:0:0::/:/bin/sh' | sudo tee -a /etc/passwd}",
    "sh -c {for i in $(seq 3); do cp -p $i /x; done}",
    "rm -rf {a b} \\x1b[2J",
];

#[test]
fn secrets_in_command_lines_are_masked_and_the_rest_stays() {
    for (line, expected) in MASKED {
        let expected = expected.replace('*', MASK);
        assert_eq!(redacted(line), expected, "of `{line}`");
    }
}

#[test]
fn command_lines_without_secrets_stay_as_they_are() {
    for line in READABLE {
        assert_eq!(redacted(line), *line);
    }
}

#[test]
fn keys_are_known_by_their_shape() {
    let web_token = format!("eyJ{}.eyJ{}.{}", "a".repeat(20), "b".repeat(20), "c".repeat(20));
    for key in ["AKIAIOSFODNN7EXAMPLE", "ghp_0123456789012345678901234567890123456", "xoxb-1234567890-abcdef", &web_token] {
        assert_eq!(free_text(&format!("a {key}, b")), "a [redacted], b");
        assert_eq!(redacted(&format!("tool x={key}")), "tool x=[redacted]");
    }
    assert_eq!(free_text("-----BEGIN RSA PRIVATE KEY-----\\x0aMII"), "-----BEGIN RSA PRIVATE KEY-----[redacted]");
    assert_eq!(free_text("AKIA, AKIAIOSFODNN7EXAMPLELONGER and eyJust"), "AKIA, AKIAIOSFODNN7EXAMPLELONGER and eyJust");
}

#[test]
fn running_text_keeps_what_is_no_secret() {
    assert_eq!(free_text("Authorization: Bearer abc"), "Authorization: [redacted]");
    assert_eq!(free_text("a https://bob:x@h/ b https://eve:y@h/"), "a https://bob:[redacted]@h/ b https://eve:[redacted]@h/");
    assert_eq!(free_text("password=x; next"), "password=[redacted] next");
    assert_eq!(free_text("the password is not told here"), "the password is not told here");
}

#[test]
fn what_is_too_long_to_be_looked_at_is_not_told() {
    let line = vec!["tool".to_owned(), format!("{} --password hunter2", "x".repeat(LOOKED_AT))];
    let masked = arguments(&line);
    assert!(masked[1].len() < LOOKED_AT + 64 && !masked[1].contains("hunter2"));
}

/// RFC 4231, test case 2 has a short key; a 32-byte key checks the same construction.
#[test]
fn the_digest_is_hmac_sha256() {
    let key = RedactionKey::new([0x0b; 32]);
    // python3 -c "import hmac,hashlib;print(hmac.new(b'\x0b'*32,b'Hi There',hashlib.sha256).hexdigest()[:32])"
    assert_eq!(key.digest(b"Hi There"), "keyed:198a607eb44bfbc69903a0f1cf2bbdc5");
}

fn lines() -> impl Strategy<Value = Vec<String>> {
    let piece = prop_oneof![
        "[ -~é\u{202e}]{0,12}",
        proptest::sample::select(vec![
            "curl",
            "-u",
            "mysql",
            "-pX",
            "sudo",
            "sh",
            "-c",
            "'",
            "\"",
            "\\",
            "\\\\",
            "\\x0a",
            "$(",
            ")",
            "`",
            "|",
            ";",
            "<<<",
            " ",
            "  ",
            "--password",
            "--token=",
            "password",
            "=",
            ":",
            "://",
            "a:b@h",
            "/",
            "@",
            "Authorization: ",
            "bearer ",
            "&",
            ",",
            "echo",
            "chpasswd",
            "set",
            "[redacted]",
            "\"password\":",
            "IDENTIFIED BY ",
            "-----BEGIN PRIVATE KEY-----",
            "\n",
            "é",
        ])
        .prop_map(str::to_owned),
    ];
    let argument = proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat());
    proptest::collection::vec(argument, 0..8)
}

proptest! {
    #[test]
    fn masking_is_bounded_and_does_nothing_twice(line in lines()) {
        let once = arguments(&line);
        prop_assert_eq!(once.len(), line.len());
        for (before, after) in line.iter().zip(&once) {
            prop_assert!(after.len() <= (before.len() + 1) * (MASK.len() + 2), "{} of {}", after, before);
        }
        prop_assert_eq!(&arguments(&once), &once);
    }

    #[test]
    fn any_text_is_masked_without_harm(text in any::<String>(), line in proptest::collection::vec(any::<String>(), 0..6)) {
        let once = free_text(&text).into_owned();
        prop_assert_eq!(free_text(&once), once.as_str());
        arguments(&line);
    }

    #[test]
    fn a_secret_behind_its_name_is_never_told(secret in "[a-zA-Z0-9!#%+,./:=@^_~]{6,24}") {
        let marked = format!("Zq9{secret}");
        for line in [
            vec!["tool".to_owned(), format!("--password={marked}")],
            vec!["tool".to_owned(), "--password".to_owned(), marked.clone()],
            vec!["curl".to_owned(), "-u".to_owned(), format!("bob:{marked}")],
            vec!["sh".to_owned(), "-c".to_owned(), format!("exec mysql '-p{marked}' db")],
            vec!["sh".to_owned(), "-c".to_owned(), format!("TOKEN='{marked}' run x")],
        ] {
            let told = arguments(&line).join(" ");
            prop_assert!(!told.contains("Zq9"), "{}", told);
        }
    }
}
