//! Which run made a change: of a package manager, of what manages hosts, in a container, and of programs that merely look
//! like one. Each story looks at the whole chain, from the process to the key that let its user in.

mod containers;
mod disguises;
mod managers;
mod packages;
mod told;

use anyhow::Context;
use trueline_fleet::collector::{Collector, Setting, Watched};
use trueline_fleet::fleet::Fleet;
use trueline_fleet::needs;
use trueline_fleet::packages::Packages;
use trueline_fleet::root::Root;
use trueline_fleet::story::story;

/// The collector, and the host that it watches.
struct Scene {
    collector: Collector,
    web: Watched,
}

impl Scene {
    async fn begin(fleet: &Fleet, packages: &Packages) -> anyhow::Result<Self> {
        let collector = Collector::install(fleet, packages, Setting::default()).await?;
        let web = Watched::install_on(fleet, &collector, packages, "web", Root::Managed).await?;
        Ok(Self { collector, web })
    }
}

#[tokio::test]
async fn what_packages_and_managers_do_is_one_transaction_each() -> anyhow::Result<()> {
    let Some(product) = needs::packages() else { return Ok(()) };
    if !needs::process_feed() || !needs::ansible() {
        return Ok(());
    }
    story(&[Root::Collector, Root::Managed], async |fleet| {
        let scene = Scene::begin(fleet, &product).await?;
        packages::installed_and_upgraded_by_a_person(&scene).await.context("packages by a person")?;
        packages::installed_once_more(&scene).await.context("a package of many files, once more")?;
        managers::unattended_upgrades(&scene).await.context("by unattended-upgrades")?;
        managers::ansible(&scene).await.context("by Ansible")?;
        managers::puppet(&scene).await.context("by Puppet")
    })
    .await
}

#[tokio::test]
async fn a_container_is_named_and_a_disguise_is_not_believed() -> anyhow::Result<()> {
    let Some(product) = needs::packages() else { return Ok(()) };
    if !needs::process_feed() {
        return Ok(());
    }
    story(&[Root::Collector, Root::Managed], async |fleet| {
        let scene = Scene::begin(fleet, &product).await?;
        containers::a_container(&scene).await.context("in a container")?;
        disguises::programs_that_look_like_others(&scene).await.context("in disguise")
    })
    .await
}
