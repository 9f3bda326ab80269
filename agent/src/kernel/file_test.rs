use super::*;

#[test]
fn numbers_become_names() {
    for number in [0, 7, 10, 1_048_575, i32::MAX] {
        assert_eq!(decimal(number, &mut [0; 16]).to_str().unwrap(), number.to_string());
    }
}

#[test]
fn a_long_path_is_cut_at_slashes_and_loses_nothing() {
    let path = format!("/{}", ["abcdefg"; 2000].join("/"));
    let mut rest = path.as_bytes();
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let (chunk, after) = next_chunk(rest);
        assert!(chunk.len() <= PATH_CHUNK);
        chunks.push(String::from_utf8(chunk.to_vec()).unwrap());
        rest = after;
    }
    assert_eq!(chunks.join("/"), path);
}

#[test]
fn without_openat2_the_same_names_are_found_and_no_link_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("real")).unwrap();
    std::fs::write(folder.path().join("real/file"), "x").unwrap();
    std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
    let path = |name: &str| CString::new(format!("{}/{name}", folder.path().display())).unwrap();
    assert!(open_stepwise(fcntl::AT_FDCWD, &path("real/file"), OFlag::O_PATH | OFlag::O_NOFOLLOW).is_ok());
    assert!(open_stepwise(fcntl::AT_FDCWD, &path("link/file"), OFlag::O_PATH | OFlag::O_NOFOLLOW).is_err());
    assert!(Pinned::open(path("link/file").as_bytes()).is_err());
    assert_eq!(Pinned::open(path("link").as_bytes()).unwrap().metadata.entry_type, EntryType::Symlink);
}
