# Short names for what `cargo xtask` does.

default:
    @just --list

# install what is missing (Debian 12, root)
setup:
    cargo xtask setup

# drain, return, kill, heal: the whole path in namespaces
demo *WORDS:
    cargo xtask demo {{WORDS}}

# everything CI runs
test:
    cargo xtask test

# quick look while writing: one package
check PACKAGE:
    cargo fmt -p {{PACKAGE}} --check
    cargo clippy -p {{PACKAGE}} --all-targets -- -D warnings
    cargo test -p {{PACKAGE}}

bench:
    cargo xtask bench

vm-drain:
    cargo xtask vm-drain
