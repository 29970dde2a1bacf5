# The built program that is newest in the nearest Cargo workspace: for bash and zsh.
_xtask_built() {
    local folder=$PWD target file built=
    while [[ -n $folder && ! -e $folder/Cargo.lock ]]; do
        folder=${folder%/*}
    done
    target=${CARGO_TARGET_DIR:-$folder/target}
    for file in "$target"/{release,debug}/xtask; do
        [[ -f $file && -x $file && ( -z $built || $file -nt $built ) ]] && built=$file
    done
    [[ -n $built ]] && printf '%s\n' "$built"
}
