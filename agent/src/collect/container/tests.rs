use proptest::prelude::*;
use trueline_drift::watch::WatchPolicy;

use super::*;

fn listed(files: &[(&str, &str)]) -> Result<Listing, CollectError> {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::at(folder.path());
    for (path, text) in files {
        std::fs::create_dir_all(root.path(path).parent().unwrap()).unwrap();
        std::fs::write(root.path(path), text).unwrap();
    }
    read_all(&Place {
        root: &root,
        policy: &WatchPolicy::default(),
        key: &RedactionKey::new([1; 32]),
        holders: &crate::collect::Holders::here(root.clone()),
        kept: &crate::collect::Kept::default(),
    })
}

fn shown(listing: &Listing) -> Vec<String> {
    listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
}

const DOCKER: &str = r#"{"StreamConfig":{},"State":{"Running":true,"Paused":false,"Pid":4711,"StartedAt":"2026-02-12T10:30:00Z"},
    "ID":"0123abcd","Created":"2026-02-12T10:29:59Z","Path":"/entry.sh","Args":["serve","--password=hunter2secret"],
    "Config":{"Hostname":"0123","User":"www","Env":["TOKEN=hunter2secret"],"Image":"nginx:1.25","Labels":{}},
    "Image":"sha256:aa11","Name":"/web","RestartCount":3}"#;

const HOST: &str = r#"{"Binds":["/var/run/docker.sock:/var/run/docker.sock","/srv:/srv:ro"],"NetworkMode":"bridge","Privileged":true,
    "PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"},{"HostIp":"::1","HostPort":"81"}],"9/udp":null},
    "RestartPolicy":{"Name":"always","MaximumRetryCount":0},"CapAdd":["SYS_ADMIN"],"PidMode":"host","SecurityOpt":null}"#;

#[test]
fn a_container_of_docker_tells_its_image_and_what_it_may_reach() {
    let listing = listed(&[
        ("/var/lib/docker/containers/0123abcd/config.v2.json", DOCKER),
        ("/var/lib/docker/containers/0123abcd/hostconfig.json", HOST),
        ("/var/lib/docker/containers/0123abcd/0123abcd-json.log", "{}"),
        ("/var/lib/docker/containers/ffff/config.v2.json", "{\"Name\":7}"),
        ("/var/lib/docker/containers/eeee/hostconfig.json", HOST),
    ]);
    let listing = listing.unwrap();
    let shown = shown(&listing);
    assert_eq!((shown.len(), listing.skipped), (1, 1), "{shown:?}");
    assert!(!shown[0].contains("hunter2") && !shown[0].contains("4711"), "{shown:?}");
    let (before, after) = shown[0].split_once(r#""command":["/entry.sh","serve","#).unwrap();
    assert_eq!(before, r#"container:docker/web {"capabilities":["SYS_ADMIN"],"#);
    let (_, after) = after.split_once("],").unwrap();
    assert_eq!(
        after,
        r#""id":"0123abcd","image":"nginx:1.25","image_digest":"sha256:aa11","mounts":["/srv:/srv:ro","/var/run/docker.sock:/var/run/docker.sock"],"network":"bridge","pid_mode":"host","ports":["8080:80/tcp","[::1]:81:80/tcp"],"privileged":true,"restart":"always","running":true,"runtime":"docker","user":"www"}"#
    );
}

#[test]
fn a_container_of_podman_is_told_by_its_name() {
    let containers = r#"[{"id":"77aa","names":["db\u001b"],"image":"bb22","layer":"x","metadata":"{\"image-name\":\"docker.io/library/postgres:16\",\"name\":\"db\"}","created":"2026-02-12T10:30:00Z"},
        {"id":"88bb","image":"","metadata":"no json"},{"names":["x"]},7]"#;
    let listing = listed(&[(podman::CONTAINERS, containers)]).unwrap();
    assert_eq!(
        shown(&listing),
        [
            r#"container:podman/88bb {"id":"88bb","runtime":"podman"}"#,
            r#"container:podman/db\x1b {"id":"77aa","image":"docker.io/library/postgres:16","image_digest":"sha256:bb22","runtime":"podman"}"#,
        ]
    );
    assert_eq!(listing.skipped, 2);
    // Torn: to tell that there is none would be wrong.
    assert!(listed(&[(podman::CONTAINERS, "[{")]).is_err());
}

#[test]
fn a_task_of_containerd_is_told_as_kubernetes_calls_it() {
    let bundle = r#"{"ociVersion":"1.1.0","process":{"args":["nginx","-g","daemon off;"],"env":["PASSWORD=hunter2"],"capabilities":{"bounding":["CAP_CHOWN"]}},
        "annotations":{"io.kubernetes.cri.container-name":"nginx","io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.image-name":"docker.io/library/nginx:1.25"}}"#;
    let listing = listed(&[
        (&format!("{}/k8s.io/99cc/config.json", containerd::TASKS), bundle),
        (&format!("{}/default/plain/address", containerd::TASKS), ""),
        (&format!("{}/moby/0123abcd/config.json", containerd::TASKS), bundle),
    ]);
    assert_eq!(
        shown(&listing.unwrap()),
        [
            r#"container:containerd/default/plain {"id":"plain","running":true,"runtime":"containerd"}"#,
            r#"container:containerd/k8s.io/shop/web-0/nginx {"capabilities":["CAP_CHOWN"],"command":["nginx","-g","daemon off;"],"id":"99cc","image":"docker.io/library/nginx:1.25","running":true,"runtime":"containerd"}"#,
        ]
    );
}

#[test]
fn a_container_that_is_called_like_another_does_not_hide_it() {
    let bundle = r#"{"annotations":{"io.kubernetes.cri.container-name":"nginx","io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.sandbox-name":"web-0"}}"#;
    let listing = listed(&[
        (&format!("{}/k8s.io/99cc/config.json", containerd::TASKS), bundle),
        (&format!("{}/k8s.io/aadd/config.json", containerd::TASKS), bundle),
    ])
    .unwrap();
    let names: Vec<_> = listing.items.iter().map(|(item, _)| item.key.as_str()).collect();
    assert_eq!(names, ["containerd/k8s.io/shop/web-0/nginx", "containerd/k8s.io/shop/web-0/nginx aadd"]);
}

proptest! {
    #[test]
    fn hostile_documents_never_panic(text in "([{}\\[\\],:\"7]|\"names\"|\"Name\"|\"id\"|null|\"metadata\"){0,40}") {
        let _ = listed(&[
            (podman::CONTAINERS, &text),
            ("/var/lib/docker/containers/a/config.v2.json", &text),
            ("/var/lib/docker/containers/a/hostconfig.json", &text),
            (&format!("{}/k8s.io/a/config.json", containerd::TASKS), &text),
        ]);
    }
}
