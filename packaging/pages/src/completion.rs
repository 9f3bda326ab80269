//! Shell completions, under the file names that each shell looks for.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap_complete::Shell;

pub fn write(command: &clap::Command, folder: &Path) -> anyhow::Result<()> {
    let name = command.get_name();
    for (shell, file) in [(Shell::Bash, name.to_owned()), (Shell::Zsh, format!("_{name}")), (Shell::Fish, format!("{name}.fish"))] {
        let folder = folder.join(shell.to_string());
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), name, &mut text);
        let path = folder.join(file);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
