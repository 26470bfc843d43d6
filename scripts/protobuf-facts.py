#!/usr/bin/env python3
"""Writes crates/registry/schema/protobuf-v1.36.json: the field numbers of every Kubernetes type.

Usage: protobuf-facts.py FOLDER-OF-K8S-PB/src

The numbers are facts, published in upstream's `generated.proto` files; the crate `k8s-pb` carries them as attributes.
JSON names come from the schema facts; a field without a JSON name there is one whose fields are inlined.
"""
import json
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
folder = pathlib.Path(__file__).resolve().parent.parent / "crates/registry/schema"
definitions = json.loads((folder / "kubernetes-v1.36.json").read_text())["definitions"]


def module_name(path):
    parts = [p.removeprefix("r#") for p in path.relative_to(root).with_suffix("").parts]
    if parts[-1] in ("mod", "lib"):
        parts.pop()
    head = {"apiextensions_apiserver": "apiextensions-apiserver", "kube_aggregator": "kube-aggregator"}
    if parts:
        parts[0] = head.get(parts[0], parts[0])
    return "io.k8s." + ".".join(parts)


fields_of = {}
for path in sorted(root.rglob("*.rs")):
    text, module = path.read_text(), module_name(path)
    for struct in re.finditer(r"^pub struct (\w+) \{(.*?)^\}", text, re.S | re.M):
        rows = []
        pattern = r"#\[prost\(([^\]]*?)\)\]\s*pub ((?:r#)?\w+):\s*(.*?),\n(?=\s*(?:///|#\[|\Z))"
        for attr, name, kind in re.findall(pattern, struct.group(2), re.S):
            rows.append((int(re.search(r'tag = "(\d+)"', attr).group(1)), name.removeprefix("r#"), attr, kind))
        fields_of[f"{module}.{struct.group(1)}"] = rows

squash = lambda s: re.sub(r"[-_$]", "", s).lower()


def resolve(module, kind):
    """The full name of a Rust type path inside a prost field's type."""
    path = re.findall(r"((?:super::)*[\w:#]+)[,>]*\s*$", kind.replace(" ", "").replace("\n", ""))[-1]
    parts = module.split(".")[2:]
    while path.startswith("super::"):
        parts.pop()
        path = path.removeprefix("super::")
    if path.startswith("crate::"):
        parts, path = [], path.removeprefix("crate::")
    names = [p.removeprefix("r#") for p in path.split("::")]
    names = [{"apiextensions_apiserver": "apiextensions-apiserver", "kube_aggregator": "kube-aggregator"}.get(n, n) for n in names]
    return ".".join(["io", "k8s", *parts, *names])


properties = {}
for name, schema in definitions.items():
    properties[name.lower()] = {squash(p): p for p in schema.get("properties", {})}

# A type that is only ever inlined has no definition of its own: its fields are named as they are elsewhere.
anywhere = {}
for names in properties.values():
    for squashed, name in names.items():
        anywhere.setdefault(squashed, set()).add(name)

table, by_lower = {}, {n.lower(): n for n in fields_of}
known = {n.lower(): n for n in definitions}
for full, rows in fields_of.items():
    module = full.rsplit(".", 1)[0]
    name = known.get(full.lower(), full)
    own = properties.get(full.lower())
    out = []
    for number, field, attr, kind in rows:
        scalar = next((s for s in ("string", "bool", "int32", "int64", "double", "message") if re.match(s + r"\b", attr)), None)
        if attr.startswith("bytes"):
            scalar = "bytes"
        mapped = re.match(r'(?:btree_map|map) = "string, (\w+)', attr)
        if mapped:
            scalar = mapped.group(1)
        shape = "map" if mapped else "list" if "repeated" in attr else "one"
        target = ""
        if scalar == "message":
            target = resolve(module, kind)
            target = known.get(target.lower(), by_lower.get(target.lower(), target))
        camel = re.sub(r"_(\w)", lambda m: m.group(1).upper(), field)
        # Reviews of admission spell a word in another way, and never come as protobuf.
        others = anywhere.get(squash(field), set()) if ".api.admission." not in full else set()
        json_name = own.get(squash(field), "") if own is not None else min(others) if len(others) == 1 else camel
        # Upstream has dropped a few fields since; they have neither a name nor anything to be inlined.
        inlined = {squash(f) for _, f, *_ in fields_of.get(target, fields_of.get(by_lower.get(target.lower()), []))}
        if json_name == "" and own and not inlined & set(own):
            continue
        out.append([number, json_name, scalar, shape, target] if target else [number, json_name, scalar, shape])
    table[name] = out

(folder / "protobuf-v1.36.json").write_text(json.dumps(table, separators=(",", ":"), sort_keys=True) + "\n")
print(len(table), "types,", sum(map(len, table.values())), "fields")
