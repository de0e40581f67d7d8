//! The table itself. `infra/template.yaml` describes the same one; this makes it where no stack does (emulators).

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement, KeyType,
    Projection, ProjectionType, ScalarAttributeType, TableDescription, TableStatus,
};

use super::{DynamoStore, feed, open};
use crate::aws::{Again, CallError, retried};
use crate::store::StoreError;

/// An index of the table. Both have the range key `c` (binary).
struct Index {
    name: &'static str,
    /// A string.
    hash: &'static str,
    /// What it projects beside the keys.
    projects: &'static str,
}

const INDEXES: [Index; 2] = [
    Index { name: feed::INDEX, hash: "f", projects: "m" },
    Index { name: open::INDEX, hash: "o", projects: "z" },
];

fn schema(hash: &str, range: &str) -> Vec<KeySchemaElement> {
    [(hash, KeyType::Hash), (range, KeyType::Range)]
        .map(|(name, kind)| {
            let element = KeySchemaElement::builder().attribute_name(name).key_type(kind);
            element.build().expect("a key has a name and a kind")
        })
        .to_vec()
}

/// Makes the table, on demand, and waits until it can be used. One that is there already is left as it is.
///
/// # Errors
/// `Unavailable` if it cannot be made.
pub async fn create_table(store: &DynamoStore) -> Result<(), StoreError> {
    let attributes = [
        ("pk", ScalarAttributeType::S),
        ("sk", ScalarAttributeType::S),
        ("f", ScalarAttributeType::S),
        ("o", ScalarAttributeType::S),
        ("c", ScalarAttributeType::B),
    ];
    let attributes = attributes.map(|(name, kind)| {
        let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(kind);
        attribute.build().expect("an attribute has a name and a type")
    });
    let indexes = INDEXES.map(|Index { name, hash, projects }| {
        let projection = Projection::builder().projection_type(ProjectionType::Include);
        let index = GlobalSecondaryIndex::builder()
            .index_name(name)
            .set_key_schema(Some(schema(hash, "c")))
            .projection(projection.non_key_attributes(projects).build());
        index.build().expect("an index has a name and a key")
    });
    let made = store
        .client
        .create_table()
        .table_name(&store.table)
        .set_attribute_definitions(Some(attributes.to_vec()))
        .set_key_schema(Some(schema("pk", "sk")))
        .set_global_secondary_indexes(Some(indexes.to_vec()))
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await;
    if let Err(error) = made
        && !error.as_service_error().is_some_and(|e| e.is_resource_in_use_exception())
    {
        return Err(CallError::from(error).into_store());
    }
    for _ in 0..100 {
        if describe_table(store).await? == TableStatus::Active {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Err(StoreError::Unavailable { why: "the table is not active after ten seconds".into() })
}

/// The table's state, or why it cannot be told.
///
/// # Errors
/// `Unavailable`, with what is missing and how to mend it.
pub async fn describe_table(store: &DynamoStore) -> Result<TableStatus, StoreError> {
    let status = describe(store).await?.table_status;
    status.ok_or_else(|| StoreError::Unavailable { why: "the table has no status".into() })
}

/// Whether the table is there, active and of our shape: so that a server says at its start what would fail later.
///
/// # Errors
/// `Unavailable`, with what is wrong and how to mend it.
pub async fn check_table(store: &DynamoStore) -> Result<(), StoreError> {
    match misfit(&describe(store).await?) {
        None => Ok(()),
        Some(why) => Err(StoreError::Unavailable { why }),
    }
}

async fn describe(store: &DynamoStore) -> Result<TableDescription, StoreError> {
    let output = retried(Again::IfUnknown, || {
        let request = store.client.describe_table().table_name(&store.table);
        async { request.send().await.map_err(CallError::from) }
    });
    let table = output.await.map_err(CallError::into_store)?.table;
    table.ok_or_else(|| StoreError::Unavailable { why: "DynamoDB described no table".into() })
}

/// What keeps a table from being used, if anything does.
fn misfit(table: &TableDescription) -> Option<String> {
    match table.table_status() {
        // It stays readable and writable while it is changed.
        Some(TableStatus::Active | TableStatus::Updating) => {}
        Some(TableStatus::Creating) => {
            return Some("the table is being created: start again when it is ACTIVE".into());
        }
        Some(TableStatus::InaccessibleEncryptionCredentials) => {
            let mend = "enable the key, and let DynamoDB use it";
            return Some(format!("DynamoDB cannot use the KMS key that the table is encrypted with: {mend}"));
        }
        status => {
            let status = status.map_or("unknown", TableStatus::as_str);
            return Some(format!("the table is not to be used, its status is {status}: name another one"));
        }
    }
    if !is_key(table.key_schema(), "pk", "sk") || !are_types(table, [("pk", "S"), ("sk", "S")]) {
        let expected = "its key is not pk (string) and sk (string)";
        return Some(format!("the table is not one of Quipu's, {expected}: {RECREATE}"));
    }
    INDEXES.iter().find_map(|index| misfit_of(table, index))
}

const RECREATE: &str = "make one from infra/template.yaml and name that";

/// What keeps an index from being used, if anything does.
fn misfit_of(table: &TableDescription, expected: &Index) -> Option<String> {
    let Index { name, hash, projects } = *expected;
    let index = table.global_secondary_indexes().iter().find(|index| index.index_name() == Some(name));
    let Some(index) = index else {
        return Some(format!("the table has no index {name}: deploy infra/template.yaml, which adds it"));
    };
    match index.index_status() {
        Some(IndexStatus::Active | IndexStatus::Updating) => {}
        Some(IndexStatus::Creating) => {
            return Some(format!("the table's index {name} is being built: start again when it is ACTIVE"));
        }
        status => {
            let status = status.map_or("unknown", IndexStatus::as_str);
            return Some(format!("the table's index {name} is not to be used, its status is {status}"));
        }
    }
    let holds = |projection: &Projection| match projection.projection_type() {
        Some(ProjectionType::All) => true,
        Some(ProjectionType::Include) => projection.non_key_attributes().iter().any(|name| name == projects),
        _ => false,
    };
    let fits = is_key(index.key_schema(), hash, "c")
        && are_types(table, [(hash, "S"), ("c", "B")])
        && index.projection().is_some_and(holds);
    let expected =
        format!("its key is not {hash} (string) and c (binary), or it does not project {projects}");
    (!fits).then(|| format!("the table's index {name} is not Quipu's, {expected}: {RECREATE}"))
}

fn is_key(schema: &[KeySchemaElement], hash: &str, range: &str) -> bool {
    let is = |element: &KeySchemaElement, name: &str, kind: KeyType| {
        element.attribute_name() == name && *element.key_type() == kind
    };
    schema.len() == 2
        && schema.iter().any(|e| is(e, hash, KeyType::Hash))
        && schema.iter().any(|e| is(e, range, KeyType::Range))
}

fn are_types<const N: usize>(table: &TableDescription, types: [(&str, &str); N]) -> bool {
    let found = table.attribute_definitions();
    types.iter().all(|(name, kind)| {
        found.iter().any(|a| a.attribute_name() == *name && a.attribute_type().as_str() == *kind)
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{AttributeDefinition, GlobalSecondaryIndexDescription};

    use super::*;

    fn attributes(types: [(&str, &str); 5]) -> Option<Vec<AttributeDefinition>> {
        let make = |(name, kind): (&str, &str)| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(kind.into()).build().unwrap()
        };
        Some(types.map(make).to_vec())
    }

    fn good_index(name: &str, hash: &str, projects: &str) -> GlobalSecondaryIndexDescription {
        let projection =
            Projection::builder().projection_type(ProjectionType::Include).non_key_attributes(projects);
        GlobalSecondaryIndexDescription::builder()
            .index_name(name)
            .index_status(IndexStatus::Active)
            .set_key_schema(Some(schema(hash, "c")))
            .projection(projection.build())
            .build()
    }

    fn good() -> TableDescription {
        TableDescription::builder()
            .table_status(TableStatus::Active)
            .set_key_schema(Some(schema("pk", "sk")))
            .set_attribute_definitions(attributes([
                ("c", "B"),
                ("f", "S"),
                ("o", "S"),
                ("pk", "S"),
                ("sk", "S"),
            ]))
            .global_secondary_indexes(good_index("feed", "f", "m"))
            .global_secondary_indexes(good_index("open", "o", "z"))
            .build()
    }

    fn with(change: impl FnOnce(&mut TableDescription)) -> String {
        let mut table = good();
        change(&mut table);
        misfit(&table).unwrap_or_else(|| "fits".into())
    }

    /// With the feed's index changed.
    fn with_index(change: impl FnOnce(&mut GlobalSecondaryIndexDescription)) -> String {
        with(|table| change(&mut table.global_secondary_indexes.as_mut().unwrap()[0]))
    }

    /// With the other one changed.
    fn with_open(change: impl FnOnce(&mut GlobalSecondaryIndexDescription)) -> String {
        with(|table| change(&mut table.global_secondary_indexes.as_mut().unwrap()[1]))
    }

    #[test]
    fn a_table_that_can_be_used_fits() {
        assert_eq!(with(|_| {}), "fits");
        assert_eq!(with(|table| table.table_status = Some(TableStatus::Updating)), "fits");
        let all = Projection::builder().projection_type(ProjectionType::All).build();
        assert_eq!(with_index(|index| index.projection = Some(all)), "fits");
    }

    #[test]
    fn a_table_that_cannot_be_used_says_why() {
        for (said, says) in [
            (with(|t| t.table_status = Some(TableStatus::Creating)), "start again when it is ACTIVE"),
            (with(|t| t.table_status = Some(TableStatus::Deleting)), "status is DELETING"),
            (
                with(|t| t.table_status = Some(TableStatus::InaccessibleEncryptionCredentials)),
                "encrypted with: enable the key",
            ),
            (with(|t| t.key_schema = Some(schema("id", "sk"))), "pk (string) and sk (string)"),
            (with(|t| t.key_schema = Some(schema("sk", "pk"))), "pk (string) and sk (string)"),
            (
                with(|t| {
                    t.attribute_definitions =
                        attributes([("c", "B"), ("f", "S"), ("o", "S"), ("pk", "S"), ("sk", "N")]);
                }),
                "pk (string) and sk (string)",
            ),
            (with(|t| t.global_secondary_indexes = None), "no index feed: deploy"),
            (with_index(|i| i.index_name = Some("other".into())), "no index feed: deploy"),
            (with_index(|i| i.index_status = Some(IndexStatus::Creating)), "feed is being built"),
            (with_index(|i| i.index_status = Some(IndexStatus::Deleting)), "status is DELETING"),
            (with_index(|i| i.key_schema = Some(schema("f", "d"))), "f (string) and c (binary)"),
            (
                with(|t| {
                    t.attribute_definitions =
                        attributes([("c", "S"), ("f", "S"), ("o", "S"), ("pk", "S"), ("sk", "S")]);
                }),
                "f (string) and c (binary)",
            ),
            (with_index(|i| i.projection = None), "does not project m"),
            (with_open(|i| i.index_name = Some("other".into())), "no index open: deploy"),
            (with_open(|i| i.index_status = Some(IndexStatus::Creating)), "open is being built"),
            (with_open(|i| i.key_schema = Some(schema("f", "c"))), "o (string) and c (binary)"),
            (with_open(|i| i.projection = good_index("open", "o", "m").projection), "does not project z"),
        ] {
            assert!(said.contains(says), "{said}");
        }
    }
}
