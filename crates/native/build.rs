//! Compiles the protocol definition without a system protoc, and writes down what a request may say: its calls, and each message's fields.

use std::fmt::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["quorate.proto"], ["proto"])?;
    let mut tables = String::from("pub(super) const CALLS: &[(&str, &str)] = &[\n");
    for method in files.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method) {
        writeln!(tables, "    ({:?}, {:?}),", method.name(), method.input_type())?;
    }
    tables.push_str("];\n\npub(super) const MESSAGES: &[(&str, Fields)] = &[\n");
    for file in &files.file {
        for message in &file.message_type {
            // What is no message has a type's name all the same if it is an enumeration.
            let fields = message.field.iter().map(|field| {
                let inner = (field.r#type() as i32 == MESSAGE).then(|| field.type_name());
                format!("({}, {inner:?})", field.number())
            });
            let fields = fields.collect::<Vec<_>>().join(", ");
            writeln!(tables, "    (\".{}.{}\", &[{fields}]),", file.package(), message.name())?;
        }
    }
    tables.push_str("];\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("tables.rs"), tables)?;
    tonic_prost_build::configure().bytes(".").codec_path("crate::grpc::codec::Codec").compile_fds(files)?;
    Ok(())
}

/// TYPE_MESSAGE, in descriptors.
const MESSAGE: i32 = 11;
