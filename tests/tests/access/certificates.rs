//! Users that are proved by a certificate, on a cluster with TLS.

use anyhow::{Context, Result, ensure};
use quorate_client::{Client, Remote, RemoteOptions};
use quorate_statemachine::access::{Enable, PutUser, Rule, User};
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::pki::client_tls;
use quorate_tests::wait::PATIENCE;

use super::{NODE, claim, name, not_let_in, put_role};

/// A client of all nodes that shows a certificate of this name.
fn certified(cluster: &Cluster, common_name: &str) -> Result<Client> {
    let authority = cluster.authority().context("it has one")?;
    let pair = authority.client(common_name)?;
    let options = RemoteOptions {
        tls: Some(client_tls(&authority.ca(), Some(&pair))?),
        ..RemoteOptions::default()
    };
    Ok(Client::new(Remote::new(cluster.all_endpoints(), options)?).with_timeout(PATIENCE))
}

async fn put(client: &Client, user: &str, certificate: bool) -> Result<()> {
    let user = User {
        name: name(user),
        roles: vec![name("root")],
        certificate,
    };
    client.execute(PutUser { user }).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_proof_of_a_user_that_was_put_with_it() -> Result<()> {
    scenario(Options::new(NODE, 3).with_tls(), async |cluster| {
        let (ops, ci) = (certified(cluster, "ops")?, certified(cluster, "ci")?);
        put_role(&ops, "root", vec![Rule::everything()]).await?;
        put(&ops, "ops", true).await?;
        put(&ops, "ci", false).await?;
        ensure!(ops.execute(Enable {}).await?, "it was off");
        ops.execute(claim("k")).await?;
        // There is such a user, but a certificate is not its proof; and there is no such user.
        not_let_in("ci", ci.execute(claim("k")).await)?;
        let eve = certified(cluster, "eve")?;
        not_let_in("eve", eve.execute(claim("k")).await)?;
        put(&ops, "ci", true).await?;
        ci.execute(claim("k")).await?;
        // A token goes over TLS to wherever the node is.
        let (token, _) = ops.create_token(name("ops"), None).await?;
        let authority = cluster.authority().context("it has one")?;
        let pair = authority.client("eve")?;
        let options = RemoteOptions {
            tls: Some(client_tls(&authority.ca(), Some(&pair))?),
            ..RemoteOptions::default()
        };
        let options = options.with_token(token);
        let both = Client::new(Remote::new(cluster.all_endpoints(), options)?);
        both.with_timeout(PATIENCE).execute(claim("k")).await?;
        Ok(())
    })
    .await
}
