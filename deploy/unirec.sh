#!/usr/bin/env bash
# UniRec on Python 3.11: FOLDER gets a copy of CHECKOUT that runs there (FOLDER/UniRec), and an
# environment for it (FOLDER/venv). The checkout stays as it is.
set -euo pipefail

if [[ $# != 2 || ! -f "$1/unirec/facility/trainer.py" ]]; then
    echo "usage: $0 CHECKOUT FOLDER; CHECKOUT is one of https://github.com/microsoft/UniRec" >&2
    exit 2
fi
checkout=$1 folder=$2
constraints="$(cd "$(dirname "$0")/.." && pwd)/constraints.txt"

# Nothing is removed but what an earlier, perhaps interrupted, run of this script has made.
mark="$folder/.made-by-unirec-sh"
if [[ -e "$folder" && ! -e "$mark" ]]; then
    echo "$folder: is there already, and not made by $0; name a new folder" >&2
    exit 2
fi
rm -rf "$folder"
mkdir -p "$folder/UniRec"
touch "$mark"
tar --directory "$checkout" --exclude ./.git --create . | tar --directory "$folder/UniRec" --extract
# Its limit is far below the torch of constraints.txt, whose schedulers know no `verbose`.
sed -i.bak 's/"torch>=\([0-9.]*\),<=[0-9.]*"/"torch>=\1"/' "$folder/UniRec/setup.py"
sed -i.bak 's/ verbose=False,//' "$folder/UniRec/unirec/facility/trainer.py"
# The sizes that RecLM-cgen trains; UniRec has no flags for some of them.
cat > "$folder/UniRec/unirec/config/model/SASRec.yaml" <<'YAML'
n_layers: 2
n_heads: 2
inner_size: 256
hidden_dropout_prob: 0.5
attn_dropout_prob: 0.5
hidden_act: gelu
layer_norm_eps: 1e-12
YAML
# It was seen to run with these; it was written for older ones than the newest.
{
    grep '^torch==' "$constraints"
    echo 'pyarrow<20'
    echo 'pandas<2.3'
} > "$folder/constraints.txt"
find "$folder/UniRec" -name "*.bak" -delete
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$folder/constraints.txt" --editable "$folder/UniRec"
