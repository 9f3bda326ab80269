//! What is known of the arguments of particular programs.

/// How one program takes secrets. Options of names that speak for themselves need no entry here.
pub(super) struct Tool {
    /// A last `*` stands for any ending.
    names: &'static [&'static str],
    /// Short options whose value is a secret, glued or as the next argument.
    pub short: &'static str,
    /// As `short`, but glued only: alone they ask at the terminal.
    pub glued: &'static str,
    /// Short options whose value is a name, the separator, and a secret.
    pub pair: &'static str,
    pub separator: char,
    /// Other short options that take a value, so that this is not read as options.
    pub valued: &'static str,
    /// As `short`, `pair` and `valued`, by their full names.
    pub long: &'static [&'static str],
    pub long_pair: &'static [&'static str],
    pub long_valued: &'static [&'static str],
    /// Options that sound like a secret, and are followed by none.
    pub harmless: &'static [&'static str],
    /// Beginnings of arguments whose rest is a secret.
    pub prefixes: &'static [&'static str],
    /// After this word (or the program itself, for none) the positional argument of this number is a secret.
    pub after: &'static [(&'static str, usize)],
    /// With this short option the last argument is a secret.
    pub last_with: Option<char>,
    /// The rules hold only where this word is among the arguments.
    pub only_with: Option<&'static str>,
    /// Positional arguments that name a secret are followed by it.
    pub names_values: bool,
    /// It reads secrets from its standard input.
    pub reads: bool,
    /// It runs the command among its arguments.
    pub wraps: bool,
}

const PLAIN: Tool = Tool {
    names: &[],
    short: "",
    glued: "",
    pair: "",
    separator: ':',
    valued: "",
    long: &[],
    long_pair: &[],
    long_valued: &[],
    harmless: &[],
    prefixes: &[],
    after: &[],
    last_with: None,
    only_with: None,
    names_values: false,
    reads: false,
    wraps: false,
};

/// Of su(1) and runuser(1). A command among the values is read as one.
const AS_ANOTHER: &[&str] = &["--command", "--group", "--session-command", "--shell", "--supp-group", "--user", "--whitelist-environment"];

static TOOLS: &[Tool] = &[
    Tool {
        names: &["curl"],
        short: "b",
        pair: "uUE",
        valued: "AcCdDeFhHKmoPQrtTwxXyYz",
        long: &["--cookie", "--oauth2-bearer", "--pass", "--proxy-pass", "--tlspassword", "--proxy-tlspassword"],
        long_pair: &["--user", "--proxy-user", "--cert", "--proxy-cert"],
        ..PLAIN
    },
    Tool { names: &["mysql*", "mariadb*"], glued: "p", valued: "DehPSTuw", harmless: &["--password", "--skip-password"], ..PLAIN },
    Tool {
        names: &["psql", "pg_*", "createdb", "dropdb", "createuser", "dropuser", "vacuumdb", "reindexdb", "clusterdb"],
        harmless: &["--password"],
        ..PLAIN
    },
    Tool { names: &["sshpass"], short: "p", valued: "dfP", wraps: true, ..PLAIN },
    Tool { names: &["openssl"], long: &["-k", "-K", "-passwd", "-srppass", "-psk"], harmless: &["-pass", "-passin", "-passout"], ..PLAIN },
    Tool { names: &["redis-cli"], short: "a", valued: "hpsunrdxitD", after: &[("auth", 1), ("AUTH", 1), ("requirepass", 1)], ..PLAIN },
    Tool {
        names: &["mongo", "mongosh", "mongodump", "mongorestore", "mongoexport", "mongoimport", "mongostat"],
        short: "p",
        valued: "cdhu",
        ..PLAIN
    },
    Tool {
        names: &["ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapmodrdn", "ldapcompare", "ldapwhoami"],
        short: "w",
        valued: "abDeEfhHlLoOpPRsStTUXyYz",
        ..PLAIN
    },
    Tool { names: &["ldappasswd"], short: "was", valued: "DeEfhHoOpPRStTUXyYz", ..PLAIN },
    Tool {
        names: &["smbclient", "smbget", "rpcclient", "net", "smbcacls", "smbtree", "wmic"],
        pair: "U",
        long_pair: &["--user"],
        separator: '%',
        valued: "AIpWncDT",
        ..PLAIN
    },
    Tool { names: &["zip", "unzip", "zipcloak", "zipinfo"], short: "P", valued: "bdnt", ..PLAIN },
    Tool { names: &["7z", "7za", "7zr", "7zz", "rar", "unrar"], prefixes: &["-p", "-hp"], ..PLAIN },
    Tool { names: &["htpasswd"], last_with: Some('b'), reads: true, ..PLAIN },
    Tool { names: &["mosquitto_pub", "mosquitto_sub", "mosquitto_rr"], short: "P", valued: "hitumpqkIlfeADLMV", ..PLAIN },
    Tool { names: &["ipmitool"], short: "PkKY", valued: "IHUpLAcCdfgoOqSNRtTbBmze", ..PLAIN },
    Tool {
        names: &["snmpget", "snmpgetnext", "snmpbulkget", "snmpset", "snmpwalk", "snmpbulkwalk", "snmptrap", "snmptable"],
        short: "cAX",
        valued: "aCDEelLmMnOPrtuvxZ",
        ..PLAIN
    },
    Tool { names: &["rabbitmqctl"], after: &[("add_user", 2), ("change_password", 2), ("authenticate_user", 2)], ..PLAIN },
    Tool { names: &["sqlcmd", "bcp", "isql", "tsql"], short: "P", valued: "SUdHpiqoQtj", ..PLAIN },
    Tool { names: &["wpa_passphrase"], after: &[("", 2)], reads: true, ..PLAIN },
    Tool { names: &["mkpasswd"], after: &[("", 1)], reads: true, ..PLAIN },
    Tool { names: &["useradd", "usermod", "groupadd", "groupmod"], short: "p", valued: "bcdefgGklKRsuvVwWZP", ..PLAIN },
    Tool { names: &["ssh-keygen"], short: "NP", valued: "abBCDeEfFGiIJjKlLMmnOrRsStTUVWwYz", ..PLAIN },
    Tool { names: &["plink", "pscp", "psftp", "putty"], long: &["-pw"], ..PLAIN },
    Tool { names: &["xfreerdp", "xfreerdp3", "wlfreerdp"], prefixes: &["/p:", "/gp:"], ..PLAIN },
    Tool { names: &["rdesktop"], short: "p", valued: "udscngkTNXabBrx", ..PLAIN },
    Tool { names: &["lftp"], pair: "u", separator: ',', valued: "ceps", long_pair: &["--user"], ..PLAIN },
    Tool { names: &["http", "https", "xh", "xhs"], pair: "a", long_pair: &["--auth"], valued: "pso", ..PLAIN },
    Tool { names: &["ab"], pair: "AP", valued: "bBcCeEfgHiInpstTuvVwXxyzZ", ..PLAIN },
    Tool {
        names: &["cqlsh", "cypher-shell", "beeline", "couchbase-cli", "cbq", "arangosh", "ncftp", "ncftpput", "ncftpget"],
        short: "p",
        valued: "uedfna",
        ..PLAIN
    },
    Tool { names: &["pdftotext", "pdfinfo", "pdfimages", "pdftoppm"], long: &["-upw", "-opw"], ..PLAIN },
    Tool { names: &["swaks"], long: &["-ap", "-apt"], ..PLAIN },
    Tool { names: &["sendemail", "sendEmail"], long: &["-xp"], ..PLAIN },
    Tool {
        names: &["pkcs11-tool", "p11tool", "softhsm2-util", "pkcs15-init"],
        short: "p",
        long: &["--pin", "--so-pin", "--new-pin"],
        ..PLAIN
    },
    Tool {
        names: &["nmcli", "wpa_cli", "iwctl", "keytool", "jarsigner", "aws"],
        names_values: true,
        harmless: &["--secret-id", "--client-request-token", "--starting-token"],
        ..PLAIN
    },
    Tool { names: &["vault"], after: &[("login", 1)], ..PLAIN },
    Tool {
        names: &["docker", "podman", "nerdctl", "buildah", "skopeo", "helm", "oras", "crane", "az"],
        short: "p",
        long_pair: &["--creds", "--src-creds", "--dest-creds"],
        harmless: &["--secret"],
        only_with: Some("login"),
        wraps: true,
        ..PLAIN
    },
    Tool { names: &["chpasswd", "passwd", "smbpasswd", "cryptsetup", "kinit"], reads: true, ..PLAIN },
    Tool { names: &["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "fish"], valued: "c", ..PLAIN },
    Tool {
        names: &["sudo"],
        valued: "CDghpRrTtUu",
        long_valued: &[
            "--chdir",
            "--chroot",
            "--close-from",
            "--command-timeout",
            "--group",
            "--host",
            "--other-user",
            "--prompt",
            "--role",
            "--type",
            "--user",
        ],
        wraps: true,
        ..PLAIN
    },
    Tool { names: &["doas"], valued: "aCu", wraps: true, ..PLAIN },
    Tool { names: &["su"], valued: "cgGsw", long_valued: AS_ANOTHER, reads: true, ..PLAIN },
    Tool { names: &["runuser"], valued: "cgGsuw", long_valued: AS_ANOTHER, wraps: true, ..PLAIN },
    Tool {
        names: &[
            "!",
            "builtin",
            "busybox",
            "chroot",
            "chrt",
            "command",
            "cpulimit",
            "do",
            "elif",
            "else",
            "env",
            "eval",
            "exec",
            "firejail",
            "flock",
            "if",
            "ionice",
            "kubectl",
            "ltrace",
            "nice",
            "nohup",
            "nsenter",
            "oc",
            "parallel",
            "pkexec",
            "prlimit",
            "script",
            "setarch",
            "setpriv",
            "setsid",
            "ssh",
            "stdbuf",
            "strace",
            "systemd-run",
            "taskset",
            "then",
            "time",
            "timeout",
            "torsocks",
            "unbuffer",
            "unshare",
            "until",
            "watch",
            "while",
            "xargs",
            "{",
        ],
        wraps: true,
        ..PLAIN
    },
];

/// A word that can be a command: its name alone, or a path into a folder of programs.
pub(super) fn known_command(word: &str) -> Option<&'static Tool> {
    let is_command = word.rsplit_once('/').is_none_or(|(folder, _)| folder.ends_with("bin"));
    known(word).filter(|_| is_command)
}

/// By the name of a program, with or without its folder.
pub(super) fn known(program: &str) -> Option<&'static Tool> {
    // A login shell's own name begins with a dash.
    let name = program.rsplit('/').next().unwrap_or(program).trim_start_matches('-');
    let is = |pattern: &&str| pattern.strip_suffix('*').map_or(*pattern == name, |start| name.starts_with(start));
    TOOLS.iter().find(|tool| tool.names.iter().any(is))
}
