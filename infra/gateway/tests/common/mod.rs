//! The sample function, deployed by a small template.

use gateway::api::{Api, Settings};
use gateway::faults::Faults;
use gateway::lambda::{Function, Machine};
use gateway::template::{self, Deployment};
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;

const TEMPLATE: &str = r#"
Globals: { Function: { Timeout: 2, MemorySize: 256, Environment: { Variables: { NAME: from the template, TZ: Mars } } } }
Resources:
  Api: { Type: AWS::Serverless::HttpApi }
  Sample:
    Type: AWS::Serverless::Function
    Properties:
      Events:
        Greedy: { Type: HttpApi, Properties: { ApiId: !Ref Api, Method: ANY, Path: "/greedy/{rest+}" } }
        Named: { Type: HttpApi, Properties: { ApiId: !Ref Api, Method: ANY, Path: "/named/{name}/end" } }
        Other: { Type: HttpApi, Properties: { ApiId: !Ref Api, Method: ANY, Path: "/named/{other}" } }
        Exact: { Type: HttpApi, Properties: { ApiId: !Ref Api, Method: ANY, Path: /greedy/exact } }
        Get: { Type: HttpApi, Properties: { ApiId: !Ref Api, Method: GET, Path: /only } }
  One:
    Type: AWS::Serverless::Function
    Metadata: { BuildProperties: { Binary: sample } }
    Properties:
      ReservedConcurrentExecutions: 1
      Events: { Post: { Type: HttpApi, Properties: { ApiId: !Ref Api, Method: POST, Path: /only } } }
  Broken:
    Type: AWS::Serverless::Function
    Metadata: { BuildProperties: { Binary: sample } }
    Properties:
      Environment: { Variables: { FAILS: init } }
      Events: { Any: { Type: HttpApi, Properties: { ApiId: !Ref Api, Method: ANY, Path: /broken } } }
"#;

/// The functions of the template, and the folder of their programs.
#[derive(Debug)]
pub(crate) struct Deployed {
    pub(crate) functions: BTreeMap<String, Function>,
    #[allow(dead_code, reason = "not every test file draws faults")]
    pub(crate) faults: Arc<Faults>,
    _folder: TempDir,
}

impl Deployed {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("sample")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sample"), folder.path().join("sample/bootstrap")).unwrap();
        let faults = Arc::new(Faults::drawn(1, gateway::faults::Rates::default()));
        let machine = Machine {
            folder: folder.path().to_owned(),
            environment: BTreeMap::from([("ENDPOINT".to_owned(), "http://127.0.0.1:1".to_owned())]),
            instances: 8,
            principals: Arc::default(),
            issuer: None,
            faults: Arc::clone(&faults),
            told: |_| {},
        };
        let specs = template::functions(TEMPLATE, &Deployment::default()).unwrap();
        let functions = specs.into_iter().map(|spec| (spec.id.clone(), Function::new(spec, machine.clone()))).collect();
        Self { functions, faults, _folder: folder }
    }

    /// The API of the functions, on a listener.
    #[allow(dead_code, reason = "not every test file asks over HTTP")]
    pub(crate) async fn listens(&self, settings: Settings) -> String {
        let api = Arc::new(Api::new(self.functions.values(), settings).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        gateway::serve_api(listener, api, |router| router);
        url
    }
}
