#!/usr/bin/env python3
"""Builds the .deb from [package.metadata.deb] in Cargo.toml with dpkg-deb. Unlike cargo-deb, it does not need Rust.

    packaging/deb/build.py PROGRAM ARCHITECTURE OUT     such as target/…/peerpigeon amd64 dist

Run packaging/prepare.sh first, with target/package as OUT, because the list of assets contains files of that folder.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib

program, architecture, out = sys.argv[1:]
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
os.chdir(root)
with open("Cargo.toml", "rb") as file:
    cargo = tomllib.load(file)
deb = cargo["package"]["metadata"]["deb"]
version = cargo["workspace"]["package"]["version"].replace("-", "~")

with tempfile.TemporaryDirectory() as work:
    os.chmod(work, 0o755)
    conffiles = [f"{path}\n" for path in deb["conf-files"]]
    for source, target, mode in deb["assets"]:
        # cargo-deb recognizes the program by this path.
        is_program = source == "target/release/peerpigeon"
        sources = [program] if is_program else sorted(glob.glob(source))
        if not sources:
            sys.exit(f"there is no {source}: run packaging/prepare.sh")
        for found in sources:
            name = os.path.basename(source if is_program else found)
            path = os.path.join(work, target, name if target.endswith("/") else "")
            path = path.rstrip("/")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copyfile(found, path)
            os.chmod(path, int(mode, 8))
    for folder, _, _ in os.walk(work):
        os.chmod(folder, 0o755)
    files = [os.path.join(at, name) for at, _, names in os.walk(work) for name in names]
    size = sum(os.path.getsize(path) for path in files) // 1024
    control = os.path.join(work, "DEBIAN")
    os.makedirs(control)
    description = "\n".join(f" {line}".rstrip() if line.strip() else " ." for line in deb["extended-description"].strip().splitlines())
    with open(os.path.join(control, "control"), "w") as file:
        file.write(
            f"Package: {deb['name']}\nVersion: {version}-1\nArchitecture: {architecture}\nMaintainer: {deb['maintainer']}\n"
            f"Installed-Size: {size}\nSection: {deb['section']}\nPriority: {deb['priority']}\n"
            f"Homepage: {cargo['workspace']['package']['repository']}\nDescription: {deb['synopsis']}\n{description}\n"
        )
    with open(os.path.join(control, "conffiles"), "w") as file:
        file.writelines(conffiles)
    for name in ("postinst", "prerm", "postrm"):
        with open(os.path.join(deb["maintainer-scripts"], name)) as script, open(os.path.join(control, name), "w") as file:
            file.write(script.read().replace("#DEBHELPER#\n", ""))
        os.chmod(os.path.join(control, name), 0o755)
    os.makedirs(out, exist_ok=True)
    target = os.path.join(out, f"{deb['name']}_{version}-1_{architecture}.deb")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", work, target], check=True, stdout=subprocess.DEVNULL)
    print(target)
