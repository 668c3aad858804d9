//! Every RPC of our own API, one line each, like `rpc/service.rs`: through the same wrapper as the CRI's,
//! then to its room. Decides nothing.

use super::{images, pods, sessions};
use crate::rpc::call::{Answer, finish, follow, read};
use shim_proto::wherry_v1 as own;
use shim_proto::wherry_v1::wherry_server::Wherry;
use shim_runtime::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Streaming};

/// Our own API over a runtime.
#[derive(Clone, Debug)]
pub(crate) struct OwnService {
    runtime: Runtime,
    /// The daemon stops: what only waits ends.
    ending: CancellationToken,
}

impl OwnService {
    /// Serves this runtime.
    pub(crate) fn new(runtime: Runtime, ending: CancellationToken) -> Self {
        Self { runtime, ending }
    }

    fn runtime(&self) -> Runtime {
        self.runtime.clone()
    }
}

#[tonic::async_trait]
impl Wherry for OwnService {
    async fn info(&self, _: Request<own::InfoRequest>) -> Answer<own::InfoResponse> {
        read("Info", "", || Ok(pods::info(&self.runtime)))
    }

    async fn run_pod(&self, q: Request<own::RunPodRequest>) -> Answer<own::RunPodResponse> {
        follow("RunPod", "", pods::run(self.runtime(), q.into_inner())).await
    }

    async fn start_again(
        &self,
        q: Request<own::StartAgainRequest>,
    ) -> Answer<own::StartAgainResponse> {
        let q = q.into_inner();
        finish("StartAgain", &q.container_id.clone(), pods::start_again(self.runtime(), q)).await
    }

    async fn wait(&self, q: Request<own::WaitRequest>) -> Answer<BoxStream<own::WaitEvent>> {
        let id = q.into_inner().container_id;
        read("Wait", &id, || pods::wait(&self.runtime, &id, self.ending.clone()))
    }

    async fn pull(&self, q: Request<own::PullRequest>) -> Answer<BoxStream<own::PullEvent>> {
        Ok(Response::new(images::pull(self.runtime(), q.into_inner().image)))
    }

    async fn import(&self, q: Request<own::ImportRequest>) -> Answer<own::ImportResponse> {
        finish("Import", "", images::import(self.runtime(), q.into_inner())).await
    }

    async fn export(&self, q: Request<own::ExportRequest>) -> Answer<own::ExportResponse> {
        finish("Export", "", images::export(self.runtime(), q.into_inner())).await
    }

    async fn tag(&self, q: Request<own::TagRequest>) -> Answer<own::TagResponse> {
        finish("Tag", "", images::tag(self.runtime(), q.into_inner())).await
    }

    async fn untag(&self, q: Request<own::UntagRequest>) -> Answer<own::UntagResponse> {
        finish("Untag", "", images::untag(self.runtime(), q.into_inner())).await
    }

    async fn session(
        &self,
        q: Request<Streaming<own::SessionInput>>,
    ) -> Answer<BoxStream<own::SessionOutput>> {
        let begun = sessions::session(self.runtime(), q.into_inner(), self.ending.clone());
        follow("Session", "", begun).await
    }

    async fn signal(&self, q: Request<own::SignalRequest>) -> Answer<own::SignalResponse> {
        let q = q.into_inner();
        finish("Signal", &q.container_id.clone(), sessions::signal(self.runtime(), q)).await
    }
}
