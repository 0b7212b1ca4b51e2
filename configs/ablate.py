"""Studies: of the VAE, which compression and which loss; of the transformer, which way of pruning and of
step distillation.

python -m launch.ablate --study=compression --out=studies/compression

Two cores: `compression` is 6 cells x 1 seed: four token counts at 96:1, and the ratios around it, about 90 minutes by
its FLOPs; `compression_quick`, 4 of them at a third of the budget, about 35 of CPU time. Cells have equal training
FLOPs, so that those of few tokens take more steps; --config.protocol=steps or decoder makes other things equal.
--config.data takes a data set or a folder of videos of your own in place of rendered clips. `objectives` is latent
consistency and scale equivariance on and off, three seeds, about 35 minutes. `arms` are ways of training a VAE that
reviewers ask about: latent consistency as KL and as MSE, scale equivariance beside EQ-VAE's turns, and a discriminator,
at three ratios and three seeds; `arms_quick` is one ratio and one seed, `arms_gpu` for an accelerator. One accelerator:
`compression_gpu`, 8 cells of mobile VAEs with a fine-tuning phase. A pod: `compression_pod`, 96 cells in four
objectives and three seeds. --plan prints the hours of each, from counted FLOPs. `patch` is three ways to one number of
tokens and values: stride 16, stride 8 with patches of 2x2 and stride 4 with 4x4 in the transformer; three seeds, about
an hour and a quarter by their FLOPs.

`pruning` prunes one strong transformer of 12 blocks (trained until 90 % of its samples are right) to a third and half
of its blocks' parameters by KD sensitivity, over all levels or blocks alone, by chance ten times and in other ways, and
measures the held-out loss at eight points of a recovery of 12 % of the teacher's steps; orders of recovering, pruning
in two rounds and other rates are arms as well. `pruning_quick` is one budget with what decides, 20 cells, which the
full study takes over in the same folder: 46 minutes on one core. `pruning_gpu`: the small transformer, samples read
back, on an accelerator.

`distillation` teaches the pruned and recovered transformer to draw in four unguided steps: by distillation alone,
against a discriminator with a convolutional head or one of transformer blocks, and by distribution matching. 24 cells,
three seeds: 43 minutes on two cores with --workers=2 once teachers and students are there, about an hour and a half
with them (the sum of its parts). `distillation_quick`, one seed without distribution matching, has not been timed:
about 25 minutes by its parts. `distillation_gpu` on an accelerator.

`snapgen` teaches a fresh tiny U-Net by a transformer on the same latents of still images: by data alone (also for as
many FLOPs as a teacher's help costs), + the teacher's velocity, + SnapGen's balance by time (and a constant one), +
features; 21 cells, three seeds. `snapgen_quick` has half of the steps, an hour on one core by its first seed.

`temporal` grows a tiny U-Net of images into one of clips by layers over time within one budget of the phone's time:
found by evolution, by random search, of one kind, and none; three seeds. `temporal_quick` is one seed and fewer kinds,
27 minutes of CPU time on one core; `temporal_gpu`, the U-Net of 379 M parameters. The others have not been timed.

`video_steps` fine-tunes a tiny video U-Net to four unguided steps by flow matching alone (for as many steps, and for as
many FLOPs), with a discriminator on clips, and on clips and images, beside the network before, guided in 20 steps and
unguided in four; 18 cells, three seeds. `video_steps_quick` is one seed with fewer steps and no arm of equal FLOPs, 28
minutes on one core; `video_steps_gpu`, `snapgenv`'s network. The others have not been timed.

`lazy` samples one transformer in fewer steps, or with outputs reused from the step before, by sensitivity, by trained
gates or by chance, at equal FLOPs, and its 4-step student with modules left out, by sensitivity or chance, or pruned to
the same phone time; three seeds, in the world of `distillation`. `lazy_quick` has two numbers of steps, one target of
gates and chance, and shorter trainings: 77 minutes on one busy core; `lazy_gpu`, the small transformer. The others have
not been timed.

`elastic` trains one transformer whose widths of a half and three quarters are networks of their own, adding gradients
as they are, or of one size as a whole or by tensor, beside the three widths trained alone for as many steps; 15 cells,
three seeds. `elastic_quick` is one of the ways and two fifths of the steps; `elastic_gpu`, widths of the small
transformer.

`ladder` trains SnapGen++'s steps from a plain transformer to three stages of sparse attention, and a plain one of the
last's FLOPs, for as many steps; 15 cells, three seeds. `ladder_quick` has two fifths of the steps, 39 minutes on one
busy core; `ladder_gpu`, the small transformer.

`token_drop` trains a transformer on a quarter of the tokens and then on all, with SPRINT's fusion or without, for the
FLOPs of a plain training or half of them; three seeds. `token_drop_quick` is the halves alone; `token_drop_gpu`, the
small transformer. None has been run.

`attention` converts one causal transformer of full attention on 320 tokens into linear attention, LCHA, LCHA with every
fourth block softmax, chunked attention, a sandwich that is searched for half of the phone's time, and random layouts of
that time, at equal training FLOPs, and streams all of them; three seeds. `attention_quick` is one seed with shorter
trainings; `attention_gpu`, the small transformer. None has been timed.

Two studies of one strong teacher, in pairs of one seed, at equal counted FLOPs: `distillation_heads` compares
discriminators, by their held-out AUC against the frozen student and by the students that they teach;
`distillation_steps` compares Euler steps and x0 noised afresh, with and without a discriminator, DMD2 and sCM, at four
points of their steps. Each has a _quick form and a _gpu one for an accelerator: `distillation_heads_quick` is in the
demo's world, whose teacher needs a few hundred steps; `distillation_steps_quick` took 83 minutes on one busy core. The
others have not been timed.

`reward` fine-tunes a transformer by a latent reward at all, early, middle and late times, with a hinge and without
flow matching, and by a critic of decoded frames through the last 1, 2 and 4 steps; `counting` guides its samples to the
number of objects by the critic, by cross-attention (CountDiffusion), and by the best of two. Both are read back by the
detector, which nothing is optimised for. Each has a _quick form of one seed, and a _gpu one. On one core `reward_quick`
takes about 45 minutes and `counting_quick` about 30; the others have not been timed.
"""

from collections.abc import Callable

import ml_collections

from configs.studies import attention, compression, distillation, networks, pruning, rewards
from mobile_video_jax.core.config import Config, to_config_dict
from mobile_video_jax.core.errors import UserError

STUDIES: dict[str, Callable[[], Config]] = {
    name: study
    for studies in (compression, pruning, distillation, networks, attention, rewards)
    for name, study in studies.STUDIES.items()
}


def get_config(study: str = "compression") -> ml_collections.ConfigDict:
    """The config of a study. Raises UserError for an unknown one."""
    if study not in STUDIES:
        raise UserError(f"study '{study}' is unknown: choose one of {', '.join(STUDIES)}")
    return to_config_dict(STUDIES[study]())
