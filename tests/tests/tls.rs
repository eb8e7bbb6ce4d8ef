//! TLS on real nodes: who is let in, who is told why not, and certificates that change under load.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use quorate_client::admin::Admin;
use quorate_client::{ClaimOutcome, Client, ClientTls, LeaseState, Remote, RemoteOptions};
use quorate_node::Config;
use quorate_node::config::ClientCertificate;
use quorate_tests::cluster::{Cluster, Options, no_panic, scenario};
use quorate_tests::pki::{Authority, Pair, client_tls, configure, replace};
use quorate_tests::process::free_port;
use quorate_tests::program::{printed, quorate, run};
use quorate_tests::wait::{PATIENCE, until};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// What a node says to whoever asks it how it is, or why that cannot be asked.
async fn asked(address: &str, tls: Option<ClientTls>) -> Result<String, String> {
    let admin = Admin::connect_with([address], tls).map_err(|error| error.to_string())?;
    let status = admin.with_timeout(PATIENCE).status().await;
    status
        .map(|status| status.role)
        .map_err(|error| error.to_string())
}

async fn refused(address: &str, tls: Option<ClientTls>, words: &str) -> Result<()> {
    let said = asked(address, tls).await;
    let error = said.err().with_context(|| format!("let in; {words:?}"))?;
    ensure!(error.contains(words), "{words:?} is not in: {error}");
    Ok(())
}

fn client(addresses: &[String], tls: ClientTls) -> Result<Client> {
    let options = RemoteOptions {
        tls: Some(tls),
        ..RemoteOptions::default()
    };
    Ok(Client::new(Remote::new(addresses.to_vec(), options)?).with_timeout(PATIENCE))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_tls_serves_and_survives_its_leader() -> Result<()> {
    scenario(Options::new(NODE, 3).with_tls(), async |cluster| {
        let client = cluster.client()?.with_timeout(PATIENCE);
        client.process("before")?.register("").await?;
        cluster.hurt().await?;
        client.process("after")?.register("").await?;
        cluster.digests_agree().await?;
        ensure!(
            client.process("before")?.get().await?.is_some(),
            "it is gone"
        );

        let authority = cluster.authority().context("it has one")?;
        let ca = authority.ca().display().to_string();
        let pair = authority.client("operator")?;
        let (cert, key) = (
            pair.cert.display().to_string(),
            pair.key.display().to_string(),
        );
        let flags = ["--cacert", &ca, "--cert", &cert, "--key", &key];
        let endpoints: Vec<String> = cluster.all_endpoints();
        let endpoints = format!("https://{}", endpoints.join(",https://"));
        let mut health = vec!["health"];
        health.extend(flags);
        printed(&run(quorate(NODE), &endpoints, &health).await?)?;
        let shown = run(quorate(NODE), &endpoints, &["health"]).await?;
        let error = String::from_utf8_lossy(&shown.stderr).into_owned();
        ensure!(error.contains("--cacert"), "{error}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_good_is_refused_with_the_reason() -> Result<()> {
    scenario(Options::new(NODE, 1).with_tls(), async |cluster| {
        let authority = cluster.authority().context("it has one")?;
        let (ca, at) = (authority.ca(), cluster.nodes[0].client_addr());
        let stranger = Authority::new(&cluster.dir().join("stranger"))?;
        let past = SystemTime::now() - Duration::from_secs(3_600);
        let ended = authority.sign("ended", &[], &[], past)?;
        let good = authority.client("good")?;
        let tls = |ca: &Path, pair: Option<&Pair>| client_tls(ca, pair).map(Some);

        refused(at, None, "TLS only").await?;
        refused(at, tls(&ca, None)?, "that show a certificate").await?;
        let foreign = stranger.client("foreign")?;
        refused(at, tls(&ca, Some(&foreign))?, "does not know the authority").await?;
        refused(at, tls(&ca, Some(&ended))?, "has expired").await?;
        refused(at, tls(&stranger.ca(), Some(&good))?, "not of an authority").await?;
        let other_name = at.replace("127.0.0.1", "localhost");
        refused(&other_name, tls(&ca, Some(&good))?, "for other hosts").await?;
        ensure!(asked(at, tls(&ca, Some(&good))?).await == Ok("leader".to_owned()));

        // Between nodes only nodes are taken, whoever signed.
        let peer = &cluster.nodes[0].config().listen.peer;
        refused(peer, tls(&ca, None)?, "that show a certificate").await?;
        refused(peer, tls(&ca, Some(&good))?, "not a node's").await?;
        let elsewhere = authority.sign(
            "elsewhere",
            &["spiffe://other/node/n1"],
            &["192.0.2.1"],
            SystemTime::now() + Duration::from_secs(3_600),
        )?;
        refused(peer, tls(&ca, Some(&elsewhere))?, "not a node's").await?;
        // A node gets through to what the port has, which is not this.
        let node = authority.node("n9")?;
        let said = asked(peer, tls(&ca, Some(&node))?)
            .await
            .expect_err("no such service");
        ensure!(
            !said.contains("TLS") && !said.contains("certificate"),
            "{said}"
        );
        let log = cluster.nodes[0].stderr()?;
        ensure!(log.contains("refused a connection"), "{log}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_know_each_other_by_their_hosts_where_certificates_have_no_uri() -> Result<()> {
    scenario(Options::new(NODE, 0).with_tls(), async |cluster| {
        let soon = SystemTime::now() + Duration::from_secs(3_600);
        for name in ["n1", "n2", "n3"] {
            let mut config = cluster.new_config(name);
            config.node.bootstrap = name == "n1";
            config.tls.peer_hosts = vec!["127.0.0.1".to_owned()];
            let authority = cluster.authority().context("it has one")?;
            let pair = authority.sign(name, &[], &["127.0.0.1"], soon)?;
            ensure!(pair.cert == config.tls.cert, "{pair:?}");
            let process = cluster.process(config)?;
            cluster.nodes.push(process);
        }
        cluster.nodes[0].start()?;
        cluster.leader().await?;
        for node in [1, 2] {
            cluster.add_node(node).await?;
        }
        cluster.hurt().await?;
        let client = cluster.client()?.with_timeout(PATIENCE);
        client.process("by-host")?.register("").await?;

        let authority = cluster.authority().context("it has one")?;
        let elsewhere = authority.sign("elsewhere", &[], &["192.0.2.1"], soon)?;
        let tls = client_tls(&authority.ca(), Some(&elsewhere))?;
        let peer = &cluster.nodes[0].config().listen.peer;
        refused(peer, Some(tls), "not a node's").await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_in_the_log_under_the_name_of_the_certificate() -> Result<()> {
    let optional = Options::new(NODE, 3).with_tls().configure(|config| {
        config.tls.client_certificate = ClientCertificate::Optional;
    });
    scenario(optional, async |cluster| {
        let authority = cluster.authority().context("it has one")?;
        let (ca, all) = (authority.ca(), cluster.all_endpoints());
        let shown = authority.client("billing-worker")?;
        let nobody = client(&all, client_tls(&ca, None)?)?;
        nobody.process("by-nobody")?.register("").await?;
        let named = client(&all, client_tls(&ca, Some(&shown))?)?;
        named.process("by-a-name")?.register("").await?;

        // An origin is the length of the name, and the name: docs/DATA.md.
        for node in &cluster.nodes {
            let dir = node.config().node.data_dir.clone();
            until("the log to have the name", PATIENCE, async || {
                Ok(has_bytes(&dir, b"\x0ebilling-worker")?.then_some(()))
            })
            .await?;
        }

        let long = "x".repeat(129);
        let soon = SystemTime::now() + Duration::from_secs(3_600);
        let too_long = authority.sign(&long, &[], &[], soon)?;
        let own = authority.sign("embedded:n1", &[], &[], soon)?;
        for (pair, words) in [(too_long, "this one has 129"), (own, "embedded:n1")] {
            let tls = client_tls(&ca, Some(&pair))?;
            refused(cluster.nodes[0].client_addr(), Some(tls), words).await?;
        }
        Ok(())
    })
    .await
}

/// Whether a file in the directory has these bytes.
fn has_bytes(dir: &Path, wanted: &[u8]) -> Result<bool> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let found = match path.is_dir() {
            true => has_bytes(&path, wanted)?,
            // One that has gone meanwhile has nothing.
            false => {
                let bytes = fs::read(&path).unwrap_or_default();
                bytes.windows(wanted.len()).any(|part| part == wanted)
            }
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_and_with_it_do_not_mix() -> Result<()> {
    let optional = Options::new(NODE, 1).with_tls().configure(|config| {
        config.tls.client_certificate = ClientCertificate::Optional;
    });
    scenario(optional, async |cluster| {
        let ca = cluster.authority().context("it has one")?.ca();
        let at = cluster.nodes[0].client_addr();
        let without = client_tls(&ca, None)?;
        ensure!(
            asked(at, Some(without.clone())).await.is_ok(),
            "it is optional"
        );
        refused(&format!("http://{at}"), Some(without), "asks for no TLS").await?;
        refused(&format!("https://{at}"), None, "asks for TLS").await
    })
    .await?;
    scenario(Options::new(NODE, 1), async |cluster| {
        let stranger = Authority::new(&cluster.dir().join("stranger"))?;
        let tls = client_tls(&stranger.ca(), None)?;
        let at = cluster.nodes[0].client_addr();
        let said = asked(at, Some(tls)).await.expect_err("the node has no TLS");
        let told = said.contains("does not speak TLS") || said.contains("speaks no TLS");
        ensure!(told, "{said}");
        Ok(())
    })
    .await
}

/// Waits until all nodes let a client with these certificates in.
async fn let_in(cluster: &Cluster, ca: &Path, pair: &Pair) -> Result<()> {
    for node in &cluster.nodes {
        until(
            "the node to take the new certificates",
            PATIENCE,
            async || {
                let said = asked(node.client_addr(), Some(client_tls(ca, Some(pair))?)).await;
                Ok(said.is_ok().then_some(()))
            },
        )
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn authority_and_certificates_are_replaced_under_a_lease_that_is_never_lost() -> Result<()> {
    scenario(Options::new(NODE, 3).with_tls(), async |cluster| {
        let old = cluster.authority().context("it has one")?;
        let ca = old.ca();
        let own = old.client("holder")?;
        let holder = client(&cluster.all_endpoints(), client_tls(&ca, Some(&own))?)?;
        let lease = holder.lease("rotation").ttl(Duration::from_secs(15));
        let ClaimOutcome::Granted(guard) = lease.try_claim().await? else {
            anyhow::bail!("nobody else claims it");
        };

        // A new authority beside the old one, then new certificates, then the new one alone.
        let new = Authority::new(&cluster.dir().join("new"))?;
        let newcomer = new.client("newcomer")?;
        replace(&ca, &format!("{}{}", old.pem(), new.pem()), 0o644)?;
        let_in(cluster, &ca, &newcomer).await?;
        for node in &cluster.nodes {
            let pair = new.node(&node.config().node.name)?;
            let (cert, key) = (&node.config().tls.cert, &node.config().tls.key);
            replace(key, &fs::read_to_string(&pair.key)?, 0o600)?;
            replace(cert, &fs::read_to_string(&pair.cert)?, 0o644)?;
        }
        let_in(cluster, &new.ca(), &newcomer).await?;
        replace(&own.key, &fs::read_to_string(&newcomer.key)?, 0o600)?;
        replace(&own.cert, &fs::read_to_string(&newcomer.cert)?, 0o644)?;
        replace(&ca, new.pem(), 0o644)?;
        for node in &cluster.nodes {
            let former = old.client("former")?;
            until("the old authority to be forgotten", PATIENCE, async || {
                let tls = client_tls(&new.ca(), Some(&former))?;
                let said = asked(node.client_addr(), Some(tls)).await;
                Ok(said.is_err().then_some(()))
            })
            .await?;
        }

        // Every connection is made anew: the new certificates must do for all of them.
        for node in 0..cluster.nodes.len() {
            cluster.nodes[node].kill()?;
            cluster.nodes[node].start()?;
            until("the node to catch up", PATIENCE, async || {
                let tls = Some(client_tls(&new.ca(), Some(&newcomer))?);
                let admin = Admin::connect_with([cluster.nodes[node].client_addr()], tls)?;
                let role = admin.status().await?.role;
                Ok(["leader", "follower"]
                    .contains(&role.as_str())
                    .then_some(()))
            })
            .await?;
            holder.process("after")?.register("").await?;
        }
        let state = guard.state();
        ensure!(!matches!(state, LeaseState::Lost(_)), "{state:?}");
        guard.release().await?;
        tells_no_secret(cluster)
    })
    .await
}

/// No line of a private key is in what the nodes wrote.
fn tells_no_secret(cluster: &Cluster) -> Result<()> {
    for node in &cluster.nodes {
        let log = node.stderr()?;
        ensure!(log.contains("read new certificates"), "{log}");
        let key = fs::read_to_string(&node.config().tls.key)?;
        let lines: Vec<&str> = key
            .lines()
            .filter(|line| !line.starts_with("---"))
            .collect();
        ensure!(!lines.is_empty(), "it is PEM");
        for line in lines {
            ensure!(!log.contains(line), "a line of the key is in the log");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_that_cannot_be_used_are_refused_and_the_old_ones_go_on() -> Result<()> {
    scenario(Options::new(NODE, 1).with_tls(), async |cluster| {
        let authority = cluster.authority().context("it has one")?;
        let pair = authority.client("operator")?;
        let tls = client_tls(&authority.ca(), Some(&pair))?;
        let at = cluster.nodes[0].client_addr();
        let cert = cluster.nodes[0].config().tls.cert.clone();
        let good = fs::read_to_string(&cert)?;
        replace(&cert, "no certificate", 0o644)?;
        alarm(at, &tls, "certificate_refused", "stay in use").await?;
        replace(&cert, &fs::read_to_string(&pair.cert)?, 0o644)?;
        alarm(at, &tls, "certificate_refused", "do not belong together").await?;
        replace(&cert, &good, 0o644)?;
        no_alarm(at, &tls).await?;

        let soon = SystemTime::now() + Duration::from_secs(3 * 86_400 + 3_600);
        let ending = authority.sign("n1", &["spiffe://test/node/n1"], &["127.0.0.1"], soon)?;
        ensure!(ending.cert == cert, "{ending:?}");
        alarm(at, &tls, "certificate_expiring", "ends in 3 days").await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pair_that_has_ended_or_is_exposed_or_too_large_is_refused() -> Result<()> {
    scenario(Options::new(NODE, 1).with_tls(), async |cluster| {
        let authority = cluster.authority().context("it has one")?;
        let pair = authority.client("operator")?;
        let tls = client_tls(&authority.ca(), Some(&pair))?;
        let at = cluster.nodes[0].client_addr();
        let own = &cluster.nodes[0].config().tls;
        let signed = |name: &str, not_after: SystemTime| {
            let uri = "spiffe://test/node/n1";
            authority.sign(name, &[uri], &["127.0.0.1"], not_after)
        };
        let put = |pair: &Pair, key_mode: u32| -> Result<()> {
            replace(&own.key, &fs::read_to_string(&pair.key)?, key_mode)?;
            replace(&own.cert, &fs::read_to_string(&pair.cert)?, 0o644)
        };
        let hour = Duration::from_secs(3_600);

        // Each time the alarm is asked for over a new connection, which the old pair serves.
        put(&signed("ended", SystemTime::now() - hour)?, 0o600)?;
        alarm(at, &tls, "certificate_refused", "has ended").await?;
        put(&signed("exposed", SystemTime::now() + 8_760 * hour)?, 0o644)?;
        alarm(at, &tls, "certificate_refused", "mode 0644").await?;
        let log = cluster.nodes[0].stderr()?;
        ensure!(!log.contains("read new certificates"), "{log}");

        // What is wrong with it is made right in place.
        fs::set_permissions(&own.key, fs::Permissions::from_mode(0o600))?;
        no_alarm(at, &tls).await?;
        let log = cluster.nodes[0].stderr()?;
        ensure!(log.contains("read new certificates"), "{log}");

        let good = fs::read_to_string(&own.cert)?;
        replace(&own.cert, &"x".repeat((4 << 20) + 1), 0o644)?;
        alarm(
            at,
            &tls,
            "certificate_refused",
            "4194305 bytes, limit 4194304",
        )
        .await?;
        replace(&own.cert, &good, 0o644)?;
        no_alarm(at, &tls).await
    })
    .await
}

/// Kinds and texts of a node's alarms, over a connection of its own.
async fn alarms(at: &str, tls: &ClientTls) -> Result<Vec<(String, String)>> {
    let admin = Admin::connect_with([at], Some(tls.clone()))?;
    let alarms = admin.status().await?.alarms;
    Ok(alarms.into_iter().map(|it| (it.kind, it.text)).collect())
}

async fn alarm(at: &str, tls: &ClientTls, kind: &str, words: &str) -> Result<()> {
    until("the alarm", PATIENCE, async || {
        let on = alarms(at, tls).await?;
        let found = on
            .iter()
            .any(|(is, text)| is == kind && text.contains(words));
        Ok(found.then_some(()))
    })
    .await
}

async fn no_alarm(at: &str, tls: &ClientTls) -> Result<()> {
    until("the alarms to end", PATIENCE, async || {
        Ok(alarms(at, tls).await?.is_empty().then_some(()))
    })
    .await
}

async fn fails(cluster: &Cluster, config: Config, words: &[&str]) -> Result<()> {
    let mut process = cluster.process(config)?;
    process.start()?;
    let status = process.exited().await?;
    let stderr = process.stderr()?;
    ensure!(status.code() == Some(1), "it ended with {status}: {stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    for word in words {
        ensure!(last.contains(word), "{word:?} is not in the error: {last}");
    }
    no_panic(&process)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_start_where_anybody_could_use_it_or_with_a_key_that_others_read()
-> Result<()> {
    scenario(Options::new(NODE, 0), async |cluster| {
        let everywhere = |name: &str| {
            let mut config = cluster.new_config(name);
            config.listen.client = format!("0.0.0.0:{}", free_port());
            config
        };
        let config = everywhere("open");
        let at = config.listen.client.clone();
        let ways = [
            "refused to listen",
            &at,
            "there is no TLS",
            "tls.cert",
            "--insecure",
        ];
        fails(cluster, config, &ways).await?;
        let authority = Authority::new(&cluster.dir().join("pki"))?;
        let pair = authority.node("n")?;
        let mut config = everywhere("half-open");
        configure(&mut config, &pair, &authority.ca());
        config.tls.accept_plaintext = true;
        fails(cluster, config, &["tls.accept_plaintext", "--insecure"]).await?;

        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o644))?;
        let mut config = everywhere("exposed");
        configure(&mut config, &pair, &authority.ca());
        fails(cluster, config, &["mode 0644", "chmod 6", "n.key"]).await?;
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600))?;

        for (name, tls, insecure) in [("insecure", false, true), ("with-tls", true, false)] {
            let mut config = everywhere(name);
            config.security.insecure = insecure;
            if tls {
                configure(&mut config, &pair, &authority.ca());
            }
            let mut process = cluster.process(config)?;
            let port = process.client_addr().replace("0.0.0.0", "127.0.0.1");
            process.start()?;
            let shown = authority.client("operator")?;
            until("the node to answer", PATIENCE, async || {
                let with = tls.then(|| client_tls(&authority.ca(), Some(&shown)));
                Ok(asked(&port, with.transpose()?).await.ok())
            })
            .await?;
            process.terminate().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_cluster_is_moved_to_tls_node_by_node() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let authority = Authority::new(&cluster.dir().join("pki"))?;
        let plain = cluster.client()?.with_timeout(PATIENCE);
        plain.process("plain")?.register("").await?;
        for accept_plaintext in [true, false] {
            for node in 0..cluster.nodes.len() {
                cluster.nodes[node].terminate().await?;
                let pair = authority.node(&cluster.nodes[node].config().node.name)?;
                cluster.nodes[node].configure(|config| {
                    configure(config, &pair, &authority.ca());
                    config.tls.accept_plaintext = accept_plaintext;
                })?;
                cluster.nodes[node].start()?;
                let own = authority.client("operator")?;
                let tls = client_tls(&authority.ca(), Some(&own))?;
                until("the node to be a voter again", PATIENCE, async || {
                    let said = asked(cluster.nodes[node].client_addr(), Some(tls.clone())).await;
                    Ok(said.is_ok_and(|role| role != "candidate").then_some(()))
                })
                .await?;
                // As long as one node takes plain connections, and so long only.
                let all = cluster.all_endpoints();
                if accept_plaintext {
                    plain.process("both")?.register("").await?;
                } else {
                    let moved = client(&all[node..=node], tls)?;
                    moved.process("moved")?.register("").await?;
                    refused(&all[node], None, "TLS only").await?;
                }
            }
        }
        Ok(())
    })
    .await
}
