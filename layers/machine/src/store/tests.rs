use super::*;
use crate::plan::Phase;

const SYSTEM: &str = "/nix/store/0c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-nixos-system-web";

async fn open(directory: &tempfile::TempDir) -> MachineStore {
    MachineStore::new(Store::open(&directory.path().join("machine.db"), MIGRATIONS).await.unwrap())
}

fn begun(machine: &str) -> Deployment {
    Deployment {
        id: DeploymentId::new(),
        machine: machine.parse().unwrap(),
        configuration: "web".to_owned(),
        reference: "main".to_owned(),
        progress: Progress::default(),
        started_at: Timestamp::now(),
        ended_at: None,
        ending: None,
        reason: String::new(),
        log: String::new(),
    }
}

#[tokio::test]
async fn a_deployment_is_found_again_until_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).await;
    let mut deployment = begun("default/web");
    store.begin(&deployment).await.unwrap();
    assert!(store.begin(&begun("default/web")).await.is_err(), "a machine has one at a time");
    store.begin(&begun("default/db")).await.unwrap();
    deployment.progress =
        Progress { phase: Phase::Activate, system: Some(SYSTEM.parse().unwrap()), ..Progress::default() };
    store.progress(deployment.id, &deployment.progress).await.unwrap();

    let store = open(&directory).await;
    assert_eq!(store.running(&deployment.machine).await.unwrap(), Some(deployment.clone()));
    let system: StorePath = SYSTEM.parse().unwrap();
    deployment.reason = "unit web.service is failed".to_owned();
    deployment.log = "x".repeat(LOG + 10);
    store.end(&deployment, Ending::RolledBack, Some(&system), Timestamp::now()).await.unwrap();
    assert_eq!(store.running(&deployment.machine).await.unwrap(), None);
    let history = store.history(Some(&deployment.machine), 10).await.unwrap();
    assert_eq!((history.len(), history[0].ending, history[0].log.len()), (1, Some(Ending::RolledBack), LOG));
    assert_eq!(store.history(None, 10).await.unwrap().len(), 2);

    let found = store.quarantined(&deployment.machine, &system).await.unwrap().unwrap();
    assert_eq!(found.reason, "unit web.service is failed");
    assert_eq!(store.quarantined(&"default/db".parse().unwrap(), &system).await.unwrap(), None);
    store.release(&deployment.machine, &system).await.unwrap();
    assert_eq!(store.quarantined(&deployment.machine, &system).await.unwrap(), None);
}

#[tokio::test]
async fn the_first_host_key_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).await;
    let machine = "default/web".parse().unwrap();
    assert_eq!(store.host_key(&machine).await.unwrap(), None);
    store.trust(&machine, "ssh-ed25519 A", Timestamp::now()).await.unwrap();
    store.trust(&machine, "ssh-ed25519 B", Timestamp::now()).await.unwrap();
    assert_eq!(store.host_key(&machine).await.unwrap().as_deref(), Some("ssh-ed25519 A"));
    store.distrust(&machine).await.unwrap();
    assert_eq!(store.host_key(&machine).await.unwrap(), None);
}

#[tokio::test]
async fn going_back_passes_over_what_only_mended_a_drift() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).await;
    let (old, new) = (SYSTEM.replace("/0c", "/1c"), SYSTEM.to_owned());
    let machine: MachineName = "default/web".parse().unwrap();
    assert_eq!(store.before(&machine).await.unwrap(), None);
    for (second, (profile, system)) in [(&old, &new), (&new, &new)].into_iter().enumerate() {
        let mut deployment = begun("default/web");
        deployment.started_at = Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
        store.begin(&deployment).await.unwrap();
        let before = crate::model::Running { profile: Some(profile.parse().unwrap()), ..Default::default() };
        deployment.progress.before = Some(before);
        deployment.progress.system = Some(system.parse().unwrap());
        store.end(&deployment, Ending::Applied, None, Timestamp::now()).await.unwrap();
    }
    assert_eq!(store.before(&machine).await.unwrap(), Some(old.parse().unwrap()));
}
