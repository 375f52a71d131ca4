#!/bin/sh
# The main job from start to end on drawn flowers. Each command is printed before it runs; run it again to see it resume.
set -eu

run() {
    if [ -t 1 ]; then printf '\n\033[1m$ %s\033[0m\n' "$*"; else printf '\n$ %s\n' "$*"; fi
    "$@"
}

echo 'A folder of labelled pictures becomes a classifier. The pictures here are drawn; yours come next.'
run python -m tools.sample.make --output=data/sample_pictures
run finetune build --train_directory=data/sample_pictures/train \
    --validation_directory=data/sample_pictures/validation --output_directory=data/sample
echo
echo 'First the head alone: what the backbone makes of the pictures is computed once, so this takes seconds.'
run finetune train --data_dir=data/sample --train_dir=checkpoints/sample_head --pretrained=sample --fine_tune --freeze_backbone
echo
echo 'Then everything, from there.'
run finetune train --data_dir=data/sample --train_dir=checkpoints/sample --pretrained=checkpoints/sample_head
run finetune eval --checkpoint_dir=checkpoints/sample --data_dir=data/sample --run_once

set --
for class in data/sample_pictures/validation/*/; do
    [ $# -eq 3 ] && break
    set -- "$@" "$(ls "$class"* | head -n 1)"
done
run finetune predict --checkpoint_dir=checkpoints/sample "$@"

cat <<'END'

Now with your own photos, one folder a class (PHOTOS/daisy/*.jpg, PHOTOS/tulip/*.jpg, ...):

  . .venv/bin/activate
  finetune build --train_directory=PHOTOS --output_directory=data/photos
  finetune train --data_dir=data/photos --pretrained=imagenet --fine_tune --freeze_backbone
  finetune eval --checkpoint_dir=checkpoints/photos --data_dir=data/photos --run_once
  finetune predict --checkpoint_dir=checkpoints/photos new.jpg folder/
END
