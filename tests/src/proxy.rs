//! TCP proxy between clients and a node, whose connections can be cut: what was on its way then is
//! lost, requests and answers alike.

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A running proxy. Dropping it ends it.
pub struct Proxy {
    cuts: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Takes connections at `listen` and passes them on to `to`.
    pub async fn start(listen: &str, to: String) -> Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let cuts = watch::Sender::new(0);
        let cut = cuts.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((incoming, _)) = listener.accept().await {
                tokio::spawn(pass_on(incoming, to.clone(), cut.clone()));
            }
        });
        Ok(Self { cuts, accepting })
    }

    /// Cuts all connections. New ones are taken at once.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass_on(mut incoming: TcpStream, to: String, mut cut: watch::Receiver<u64>) {
    cut.mark_unchanged();
    let Ok(mut outgoing) = TcpStream::connect(&to).await else {
        return;
    };
    tokio::select! {
        _ = copy_bidirectional(&mut incoming, &mut outgoing) => {}
        _ = cut.changed() => {}
    }
}
