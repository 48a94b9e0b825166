//! What a deployment looks like from outside: probes that ask as clients do, over HTTP, and know no store.
//!
//! 1. The anonymous probes. *Nothing answers*: that is all.
//! 2. With a token: whose it is, and a private collection of our own, `doctor-` and random digits, to push to. *Refused*:
//!    the probes that push are skipped.
//! 3. The other probes, one after another. *A probe fails*: the next ones go on.
//! 4. The collection is deleted with everything in it, whatever came out. *Dies before*: it stays, and its description
//!    says that it may be deleted.

mod gateway;
mod library;
mod registry;
mod sif;
mod site;
mod store;

use reqwest::{Client, Url};
use serde::Serialize;
use site::Site;
use std::pin::Pin;

/// What a probe saw, if it saw nothing wrong. An error is what is wrong.
#[derive(Debug)]
enum Verdict {
    Ok(String),
    Warning(String),
    /// The reason for which nothing was tried.
    Skipped(String),
}

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warning,
    /// It does not work for some clients.
    Failed,
    /// It was not tried.
    Skipped,
}

/// What came out of one probe.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    /// The name of the probe.
    pub(crate) probe: &'static str,
    pub(crate) status: Status,
    /// What the probe checks.
    pub(crate) checks: &'static str,
    /// What it saw, or why it was skipped.
    pub(crate) seen: String,
    /// What that means, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) means: Option<&'static str>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<&'static str>,
    /// The page that says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) page: Option<&'static str>,
}

/// What a probe needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// Somebody's token.
    Token,
    /// A place to push to.
    Place,
    /// That, and that somebody asked for a long probe.
    Large,
}

type Seeing<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Verdict>> + Send + 'a>>;

/// One probe.
struct Probe {
    name: &'static str,
    checks: &'static str,
    /// What it means if it fails or warns.
    means: &'static str,
    advice: &'static str,
    page: &'static str,
    needs: Needs,
    see: for<'a> fn(&'a Site) -> Seeing<'a>,
}

/// All probes, in their order.
const PROBES: &[Probe] = &[
    Probe {
        name: "version",
        checks: "The URL is that of a library, and it answers.",
        means: "Nothing else can be tried.",
        advice: "Compare the URL with `STACKROOM_PUBLIC_URL`, and look whether the server or the functions run.",
        page: "docs/admin/aws.md",
        needs: Needs::Nothing,
        see: |site| Box::pin(gateway::version(site)),
    },
    Probe {
        name: "stores-ready",
        checks: "The server reaches its table and its bucket.",
        means: "No push and no pull works.",
        advice: "The log says which of them does not answer, and why.",
        page: "docs/admin/aws.md",
        needs: Needs::Nothing,
        see: |site| Box::pin(gateway::stores_ready(site)),
    },
    Probe {
        name: "addresses",
        checks: "Clients are sent to the URL at which the library was asked.",
        means: "`remote add` and `remote login` go to another host, or to none.",
        advice: "Set `STACKROOM_PUBLIC_URL`, on AWS the parameter `PublicUrl`, to the URL that clients use.",
        page: "docs/admin/configuration.md",
        needs: Needs::Nothing,
        see: |site| Box::pin(gateway::addresses(site)),
    },
    Probe {
        name: "tls",
        checks: "The connection is encrypted, unless it stays on this machine.",
        means: "Whoever is on the way can read and use tokens.",
        advice: "Put a proxy with a certificate in front.",
        page: "docs/admin/set-up.md",
        needs: Needs::Nothing,
        see: |site| Box::pin(gateway::tls(site)),
    },
    Probe {
        name: "clock",
        checks: "The clocks of the server and of this machine agree.",
        means: "Signed URLs and short-lived tokens are refused, or live too long.",
        advice: "Set the clock that is wrong, and keep it right by NTP.",
        page: "docs/admin/doctor.md",
        needs: Needs::Nothing,
        see: |site| Box::pin(gateway::clock(site)),
    },
    Probe {
        name: "challenge",
        checks: "`/v2/` tells registry clients where to log in, in answers to `GET` and `HEAD`.",
        means: "`docker login` fails.",
        advice: "Let `WWW-Authenticate` pass unchanged: an HTTP API does, a REST API renames it.",
        page: "docs/unverified.md#the-challenge-reaches-registry-clients",
        needs: Needs::Nothing,
        see: |site| Box::pin(gateway::challenge(site)),
    },
    Probe {
        name: "own-errors",
        checks: "What is not there is answered by the library, in the form that clients read.",
        means: "Clients show a wrong reason, or stop where they should create something.",
        advice: "Let the gateway or proxy pass errors on, and lead all paths of the template to their functions.",
        page: "docs/unverified.md#api-gateway-passes-paths-unchanged",
        needs: Needs::Nothing,
        see: |site| Box::pin(gateway::own_errors(site)),
    },
    Probe {
        name: "trailing-slash",
        checks: "A path that ends in `/` reaches the library.",
        means: "Old clients can't push to the default entity.",
        advice: "Let the gateway or proxy leave paths unchanged.",
        page: "docs/unverified.md#api-gateway-passes-paths-unchanged",
        needs: Needs::Nothing,
        see: |site| Box::pin(gateway::trailing_slash(site)),
    },
    Probe {
        name: "token",
        checks: "The token is valid, and belongs to somebody.",
        means: "Nobody with this token can push, or the header `Authorization` does not arrive.",
        advice: "Make a new token; if that fails too, look at what the gateway or proxy does with `Authorization`.",
        page: "docs/user/tokens.md",
        needs: Needs::Token,
        see: |site| Box::pin(library::token(site)),
    },
    Probe {
        name: "login",
        checks: "`docker login` gets a short-lived token for a name and a token, and nobody gets one with a wrong password.",
        means: "No registry client can push or pull what is not public.",
        advice: "Look at what the gateway or proxy does with `Authorization`, and whether `/token` reaches `Login`.",
        page: "docs/unverified.md#the-token-keys",
        needs: Needs::Token,
        see: |site| Box::pin(registry::login(site)),
    },
    Probe {
        name: "place",
        checks: "A private collection and a container can be made.",
        means: "Nothing can be pushed with this token to this entity.",
        advice: "Use a token that may push and delete, or name another entity with `--entity`.",
        page: "docs/user/permissions.md",
        needs: Needs::Token,
        see: |site| Box::pin(library::place(site)),
    },
    Probe {
        name: "push",
        checks: "An image is pushed through the library in one request, and found by its tag.",
        means: "`apptainer push` fails.",
        advice: "The log of the functions `Library` and `Imagefile` says why.",
        page: "docs/user/push.md",
        needs: Needs::Place,
        see: |site| Box::pin(library::push(site)),
    },
    Probe {
        name: "pull",
        checks: "Its bytes come back from the object store unchanged.",
        means: "`apptainer pull` fails.",
        advice: "Let clients reach the host of the object store, and let nothing change what it sends.",
        page: "docs/user/pull.md",
        needs: Needs::Place,
        see: |site| Box::pin(library::pull(site)),
    },
    Probe {
        name: "ranges",
        checks: "The object store sends a part of an image, with `Content-Range`.",
        means: "Clients that download in parts fail, among them SingularityCE 3.9.",
        advice: "Let `Range` and `Content-Range` pass on the way to the object store.",
        page: "docs/admin/doctor.md",
        needs: Needs::Place,
        see: |site| Box::pin(library::ranges(site)),
    },
    Probe {
        name: "double-slash",
        checks: "`//` in a path arrives as it was sent.",
        means: "Lookups of Singularity 3.4 to 3.7 fail, and old pushes go elsewhere.",
        advice: "Let the gateway or proxy leave paths unchanged: for nginx, `merge_slashes off`.",
        page: "docs/unverified.md#api-gateway-passes-paths-unchanged",
        needs: Needs::Place,
        see: |site| Box::pin(library::double_slash(site)),
    },
    Probe {
        name: "escaped-colon",
        checks: "`%3A` in a path is read as `:`.",
        means: "Lookups of old clients fail.",
        advice: "Let the gateway or proxy leave paths unchanged.",
        page: "docs/unverified.md#api-gateway-passes-paths-unchanged",
        needs: Needs::Place,
        see: |site| Box::pin(library::escaped_colon(site)),
    },
    Probe {
        name: "bearer-in-capitals",
        checks: "`BEARER` in capitals is a login, and such clients do not send their token to the store.",
        means: "SingularityCE 3.10 and Apptainer 1.1 can't pull private images.",
        advice: "Let no authorizer of a gateway or proxy look at `Authorization`.",
        page: "docs/admin/doctor.md",
        needs: Needs::Place,
        see: |site| Box::pin(library::bearer_in_capitals(site)),
    },
    Probe {
        name: "pinned-put",
        checks: "The object store refuses other bytes than those whose digest a URL names, and takes the right ones.",
        means: "Wrong bytes can be stored under a digest, or nothing can be pushed.",
        advice: "Set `STACKROOM_PIN_UPLOADS=false`: every upload is then read and hashed.",
        page: "docs/unverified.md#s3-enforces-the-pinned-hash",
        needs: Needs::Place,
        see: |site| Box::pin(library::pinned_put(site)),
    },
    Probe {
        name: "pinned-part",
        checks: "The same for a part of an upload in parts.",
        means: "Wrong bytes are found only when the parts are put together, or no large image can be pushed.",
        advice: "Set `STACKROOM_PIN_UPLOADS=false`.",
        page: "docs/unverified.md#s3-enforces-the-pinned-hash",
        needs: Needs::Place,
        see: |site| Box::pin(library::pinned_part(site)),
    },
    Probe {
        name: "signed-length",
        checks: "The object store refuses one byte more and one byte less than a URL is for.",
        means: "An upload can exceed its reservation until it is completed, and is refused only then.",
        advice: "Look whether something between clients and the store changes `Content-Length`.",
        page: "docs/unverified.md#s3-enforces-the-signed-length",
        needs: Needs::Place,
        see: |site| Box::pin(library::signed_length(site)),
    },
    Probe {
        name: "multipart",
        checks: "An image comes in parts, is put together and verified.",
        means: "No image above 64 MiB can be pushed.",
        advice: "Let the `ETag` of the store pass; the log of the function `Imagefile` says what it refused.",
        page: "docs/user/push.md",
        needs: Needs::Place,
        see: |site| Box::pin(library::multipart(site)),
    },
    Probe {
        name: "not-encoded",
        checks: "Downloads are not marked as encoded, whatever their uploader said.",
        means: "An uploader can make others' clients decode or refuse bytes that they share.",
        advice: "Report it: the store does not do what `response-content-encoding` asks.",
        page: "docs/unverified.md#a-url-can-say-that-an-object-is-not-encoded",
        needs: Needs::Place,
        see: |site| Box::pin(store::not_encoded(site)),
    },
    Probe {
        name: "share",
        checks: "A share is made, and somebody without a token downloads by it.",
        means: "Uses of shares are refused.",
        advice: "With 503: the role of the function `Shares` lacks a permission. Its log names it.",
        page: "docs/unverified.md#a-transaction-of-one-addition-needs-only-updateitem",
        needs: Needs::Place,
        see: |site| Box::pin(library::share(site)),
    },
    Probe {
        name: "registry-push",
        checks: "A blob and a manifest are pushed through the registry, and the tag is listed.",
        means: "`docker push` and `oras push` fail.",
        advice: "The log of the function `Oci` says why.",
        page: "docs/admin/doctor.md",
        needs: Needs::Place,
        see: |site| Box::pin(registry::push(site)),
    },
    Probe {
        name: "head-lengths",
        checks: "`HEAD` of a manifest and of a blob tells its length and its digest.",
        means: "Pushes end with a wrong size, and pulls by tag may fail.",
        advice: "Let the gateway or proxy pass `Content-Length` of answers to `HEAD` unchanged.",
        page: "docs/unverified.md#the-challenge-reaches-registry-clients",
        needs: Needs::Place,
        see: |site| Box::pin(registry::head_lengths(site)),
    },
    Probe {
        name: "blob",
        checks: "A blob comes back unchanged, and the first answer, a redirect or not, states its digest.",
        means: "Registry clients can't pull layers, or can't check what they got.",
        advice: "Let clients reach the host of the object store, and let `Docker-Content-Digest` pass.",
        page: "docs/unverified.md#s3-sends-no-digest-of-its-own",
        needs: Needs::Place,
        see: |site| Box::pin(registry::blob(site)),
    },
    Probe {
        name: "blob-ranges",
        checks: "A part of a blob is sent if it is asked for.",
        means: "A pull that was interrupted begins again.",
        advice: "Let `Range` and `Content-Range` pass.",
        page: "docs/admin/doctor.md",
        needs: Needs::Place,
        see: |site| Box::pin(registry::blob_ranges(site)),
    },
    Probe {
        name: "upload-location",
        checks: "A layer is sent to the `Location` of its upload, and closed at the one that follows.",
        means: "No registry client but those that send all in one request can push.",
        advice: "Let `Location` pass unchanged, query included; look at `STACKROOM_INGEST_URL`.",
        page: "docs/admin/aws.md#large-layers",
        needs: Needs::Place,
        see: |site| Box::pin(registry::upload_location(site)),
    },
    Probe {
        name: "long-layer",
        checks: "A layer of 5 MiB comes in one request, and is pulled whole and in part.",
        means: "Docker and most others can push no larger layers, or pull none.",
        advice: "To push: run `stackroom ingest`, and set `STACKROOM_INGEST_URL`; or let the proxy accept long bodies. To \
                 pull: look at `STACKROOM_PROXY_SENDS`, if it is set, and whether the proxy may read the object files.",
        page: "docs/admin/aws.md#large-layers",
        needs: Needs::Place,
        see: |site| Box::pin(registry::long_layer(site)),
    },
    Probe {
        name: "manifest-bytes",
        checks: "A manifest of 4 MiB, full of quotes and non-ASCII characters, comes back byte for byte.",
        means: "Clients refuse manifests whose digest is wrong, or large ones can't be pushed or pulled.",
        advice: "Look whether something on the way decodes bodies, or limits them to less than 6 MB.",
        page: "docs/unverified.md#manifests-are-sent-byte-for-byte",
        needs: Needs::Place,
        see: |site| Box::pin(registry::manifest_bytes(site)),
    },
    Probe {
        name: "redirect-lives",
        checks: "The URLs of downloads say how long they are valid, and their signer's clock is right.",
        means: "Downloads that take longer break off, or all are refused.",
        advice: "Lower `STACKROOM_DOWNLOAD_LIFE` and `STACKROOM_UPLOAD_LIFE` to what the credentials live, or sign with \
                 those of a user.",
        page: "docs/unverified.md#a-presigned-url-lasts-as-long-as-it-says",
        needs: Needs::Place,
        see: |site| Box::pin(store::redirect_lives(site)),
    },
    Probe {
        name: "browsers",
        checks: "The object store lets pages of the library's own host send bytes to it.",
        means: "Pages in browsers can't upload. No other client needs it.",
        advice: "Set the bucket's CORS rules as `template.yaml` does.",
        page: "docs/admin/doctor.md",
        needs: Needs::Place,
        see: |site| Box::pin(store::browsers(site)),
    },
    Probe {
        name: "parallel-pushes",
        checks: "Fifty pushes at once into one entity are all accepted.",
        means: "Busy pushes fail with 503 or 429.",
        advice: "Count `TransactionConflict` and throttled calls in CloudWatch, and the executions that the account has.",
        page: "docs/unverified.md#conflicting-transactions",
        needs: Needs::Place,
        see: |site| Box::pin(registry::parallel_pushes(site)),
    },
    Probe {
        name: "large-push",
        checks: "500 MiB come in parts, and are verified within the 29 seconds that a gateway waits.",
        means: "Pushes between 64 MiB and that size end with a timeout.",
        advice: "Give the function `Imagefile` more memory, or set `STACKROOM_VERIFY_AT_ONCE` lower.",
        page: "docs/unverified.md#29-seconds-for-a-request",
        needs: Needs::Large,
        see: |site| Box::pin(library::large_push(site)),
    },
    Probe {
        name: "cleanup",
        checks: "What the probes made is deleted.",
        means: "A private collection, `doctor-` and digits, is left and uses quota.",
        advice: "Delete it: `stackroom delete ENTITY/COLLECTION --cascade`.",
        page: "docs/user/deleting.md",
        needs: Needs::Token,
        see: |site| Box::pin(library::cleanup(site)),
    },
];

/// Whether a URL never leaves this machine.
pub(crate) fn on_this_machine(url: &Url) -> bool {
    url.host_str().is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host))
}

/// What to probe, and how.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The URL of the library.
    pub(crate) url: Url,
    /// Asks. It must not follow redirects.
    pub(crate) client: Client,
    /// Without a token, only the anonymous probes run.
    pub(crate) token: Option<String>,
    /// Where to push, if not to the entity of whoever the token is for.
    pub(crate) entity: Option<String>,
    /// Also run the probes that move much data.
    pub(crate) large: bool,
}

/// Runs all probes, and tells each finding as soon as it is there.
pub(crate) async fn run(settings: Settings, mut tell: impl FnMut(&Finding)) -> Vec<Finding> {
    let Settings { url, client, token, entity, large } = settings;
    let site = Site::new(url, client, token, entity);
    let mut stopped = None;
    let mut findings: Vec<Finding> = Vec::new();
    for probe in PROBES {
        let cleanup = probe.name == "cleanup";
        let skipped = match stopped {
            Some(why) if !cleanup => Some(why),
            _ => missing(probe.needs, &site, large),
        };
        let verdict = match skipped {
            Some(why) => Ok(Verdict::Skipped(why.to_owned())),
            // Whoever interrupts it wants nothing left, either.
            None if cleanup => (probe.see)(&site).await,
            None => tokio::select! {
                verdict = (probe.see)(&site) => verdict,
                _ = tokio::signal::ctrl_c() => {
                    stopped = Some("interrupted");
                    Ok(Verdict::Skipped("interrupted".to_owned()))
                }
            },
        };
        if probe.name == "version" && verdict.is_err() {
            stopped = Some("nothing answers there");
        }
        let finding = found(probe, verdict);
        tell(&finding);
        findings.push(finding);
    }
    findings
}

/// What a probe lacks.
fn missing(needs: Needs, site: &Site, large: bool) -> Option<&'static str> {
    match needs {
        Needs::Nothing => None,
        Needs::Large if !large => Some("only with `--large`"),
        _ if !site.has_token() => Some("it needs a token: set `STACKROOM_TOKEN`"),
        Needs::Place | Needs::Large if site.place().is_err() => Some("there is no place to push to: see `place`"),
        _ => None,
    }
}

fn found(probe: &Probe, verdict: anyhow::Result<Verdict>) -> Finding {
    let (status, seen) = match verdict {
        Ok(Verdict::Ok(seen)) => (Status::Ok, seen),
        Ok(Verdict::Warning(seen)) => (Status::Warning, seen),
        Ok(Verdict::Skipped(why)) => (Status::Skipped, why),
        Err(error) => (Status::Failed, format!("{error:#}")),
    };
    let wrong = matches!(status, Status::Warning | Status::Failed);
    let of = |text: &'static str| wrong.then_some(text);
    let Probe { name, checks, means, advice, page, .. } = probe;
    Finding { probe: name, status, checks, seen, means: of(means), advice: of(advice), page: of(page) }
}
