"""A project: what `finetune PHOTOS` makes of a folder, what is to be done next, and what there is time for."""
