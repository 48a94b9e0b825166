//! What a call of `DynamoDB` needs, and how it is refused.
//!
//! Source: *Service Authorization Reference*, "Actions, resources, and condition keys for Amazon `DynamoDB`"; *`DynamoDB`
//! Developer Guide*, "Using IAM with `DynamoDB` transactions", "Error handling with `DynamoDB`".

use super::Need;
use http::HeaderMap;
use serde_json::{Value, json};

/// A call, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The operation.
    pub operation: String,
    /// What it needs.
    pub needs: Vec<Need>,
}

/// The operation of a call. Source: *`DynamoDB` Developer Guide*, "`DynamoDB` low-level API": the header `X-Amz-Target`.
pub fn operation(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-amz-target")?.to_str().ok()?.split_once('.').map(|(_, operation)| operation)
}

/// What a call needs. `None` if it can't be read.
///
/// - A transaction needs what each of its parts would need alone. Source: "Using IAM with `DynamoDB` transactions": the
///   permissions of `TransactWriteItems` are those of `PutItem`, `UpdateItem`, `DeleteItem` and `ConditionCheckItem`.
/// - A batch needs its own action, once for each table. Source: the table of actions in the Authorization Reference.
/// - A query of an index needs it on the index.
pub fn asked(headers: &HeaderMap, body: &[u8], prefix: &str) -> Option<Asked> {
    let operation = operation(headers)?.to_owned();
    let body: Value = serde_json::from_slice(body).ok()?;
    let on = |action: &str, part: &Value| {
        let table = part.get("TableName")?.as_str()?;
        let mut resource = if table.starts_with("arn:") { table.to_owned() } else { format!("{prefix}{table}") };
        if let Some(index) = part.get("IndexName").and_then(Value::as_str) {
            resource = format!("{resource}/index/{index}");
        }
        Some(Need::new(format!("dynamodb:{action}"), resource))
    };
    let needs: Option<Vec<Need>> = match operation.as_str() {
        "TransactWriteItems" | "TransactGetItems" => {
            let items =
                body.get("TransactItems")?.as_array()?.iter().flat_map(|item| item.as_object().into_iter().flatten());
            items
                .map(|(kind, part)| {
                    let action = match kind.as_str() {
                        "Put" => "PutItem",
                        "Update" => "UpdateItem",
                        "Delete" => "DeleteItem",
                        "ConditionCheck" => "ConditionCheckItem",
                        "Get" => "GetItem",
                        _ => return None,
                    };
                    on(action, part)
                })
                .collect()
        }
        "BatchGetItem" | "BatchWriteItem" => {
            let tables = body.get("RequestItems")?.as_object()?.keys();
            tables.map(|table| on(&operation, &json!({ "TableName": table }))).collect()
        }
        "ListTables" => Some(vec![Need::new("dynamodb:ListTables", "*")]),
        _ => Some(vec![on(&operation, &body)?]),
    };
    let mut needs = needs?;
    needs.sort();
    needs.dedup();
    Some(Asked { operation, needs })
}

/// The refusal of a call: its status, and its body of type `application/x-amz-json-1.0`. Source: *`DynamoDB` Developer
/// Guide*, "Error messages and codes": `AccessDeniedException`, HTTP status 400.
pub fn refusal(code: &str, message: &str) -> (u16, String) {
    let body = json!({ "__type": format!("com.amazon.coral.service#{code}"), "Message": message });
    (400, body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(operation: &str, body: &Value) -> Option<Vec<String>> {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-target", format!("DynamoDB_20120810.{operation}").parse().unwrap());
        let asked = asked(&headers, body.to_string().as_bytes(), "arn:aws:dynamodb:r:1:table/")?;
        Some(asked.needs.iter().map(|need| need.to_string().replace("arn:aws:dynamodb:r:1:table/", "")).collect())
    }

    #[test]
    fn a_simple_call_needs_its_own_action_on_its_table_or_index() {
        assert_eq!(needs("GetItem", &json!({ "TableName": "t" })).unwrap(), ["dynamodb:GetItem on t"]);
        assert_eq!(
            needs("Query", &json!({ "TableName": "t", "IndexName": "i" })).unwrap(),
            ["dynamodb:Query on t/index/i"]
        );
        let arn = json!({ "TableName": "arn:aws:dynamodb:x:2:table/other" });
        assert_eq!(needs("Scan", &arn).unwrap(), ["dynamodb:Scan on arn:aws:dynamodb:x:2:table/other"]);
        assert_eq!(needs("GetItem", &json!({})), None);
        assert_eq!(asked(&HeaderMap::new(), b"{}", ""), None);
    }

    #[test]
    fn a_transaction_needs_what_its_parts_need() {
        let part = json!({ "TableName": "t" });
        let items = json!({ "TransactItems": [{ "Put": part }, { "Update": part }, { "Put": part }, { "Delete": part }, { "ConditionCheck": part }] });
        let expected = [
            "dynamodb:ConditionCheckItem on t",
            "dynamodb:DeleteItem on t",
            "dynamodb:PutItem on t",
            "dynamodb:UpdateItem on t",
        ];
        assert_eq!(needs("TransactWriteItems", &items).unwrap(), expected);
        let items = json!({ "TransactItems": [{ "Get": part }] });
        assert_eq!(needs("TransactGetItems", &items).unwrap(), ["dynamodb:GetItem on t"]);
        assert_eq!(needs("TransactWriteItems", &json!({ "TransactItems": [{ "Drop": part }] })), None);
    }

    #[test]
    fn a_batch_needs_its_own_action_on_each_table() {
        let items = json!({ "RequestItems": { "t": {}, "u": {} } });
        assert_eq!(
            needs("BatchGetItem", &items).unwrap(),
            ["dynamodb:BatchGetItem on t", "dynamodb:BatchGetItem on u"]
        );
    }
}
