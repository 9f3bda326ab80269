//! Kernel settings, and the files that set them.

use super::*;

fn told(records: &[RecordBody]) -> Vec<String> {
    let changes = records.iter().filter_map(|record| match record {
        RecordBody::Changed(change) => Some(change),
        _ => None,
    });
    let fields = changes.flat_map(|change| {
        let process = change.actor.process.as_ref().map_or(0, |process| process.pid);
        change.fields.iter().map(move |field| format!("{} {} by {process}", change.item, field.name))
    });
    fields.collect()
}

/// What is in force changed too, and is told by whoever touched it.
#[test]
fn who_writes_a_file_of_settings_sets_none() {
    let mut scene = Scene::new();
    let setting = scene.root("proc/sys/kernel/sysrq");
    let file = scene.root("etc/sysctl.d/own.conf");
    for path in [&setting, &file] {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    std::fs::write(&setting, "1\n").unwrap();
    std::fs::write(&file, "").unwrap();
    let policy = WatchPolicy { kinds: vec![ItemKind::Sysctl], ..WatchPolicy::default() };
    let records = scene.run(policy, inventory(), Box::new(|records| told(records).len() == 3), |scene, _| {
        let item = "sysctl:kernel.sysrq".parse().unwrap();
        until("the setting is known", || scene.state.lookup(&item).unwrap().is_some());
        std::fs::write(&setting, "0\n").unwrap();
        std::fs::write(&file, "kernel.sysrq = 0\n").unwrap();
        scene.touch_as(Path::new("/etc/sysctl.d/own.conf"), Some(7), Depth::Item);
        until("the file is told", || scene.state.lookup(&item).unwrap().unwrap().fields.value("configured").is_some());
        scene.touch_target(Target::Sysctl("kernel.sysrq".to_owned()), Some(9), Depth::Item);
    });
    let [by_file, at, value] = ["configured by 7", "configured_by by 7", "value by 9"].map(|told| format!("sysctl:kernel.sysrq {told}"));
    assert_eq!(told(&records), [by_file, at, value]);
}
