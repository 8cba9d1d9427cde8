"""The method, and nothing else: steps, confidence, rollout, rewards, loss, update. No torch at import, no I/O.

Where to begin: :func:`.update.step_grpo_update` is the whole algorithm on one page.

Equations of the paper (Chen et al., "Step-GRPO", ACL 2026, arXiv 2604.16890) and the functions that compute them:

========  ==================================================  ==========================================================
equation  what it says                                        here
========  ==================================================  ==========================================================
2         confidence: exp of the mean log-probability         :func:`.confidence.confidence`
2         exit where it exceeds the threshold                 :class:`.confidence.ExitRule`, asked by the trajectory
                                                              machine (:class:`.rollout.TrajectoryMachine`)
3         steps: k = 1 + number of markers                    :class:`.steps.MarkerSegmenter`
4         excess: tanh((k - mu) / mu), mu of the right ones   :func:`.rewards.step_excess`,
                                                              :func:`.rewards.group_mean_steps`
5         reward: a c (1 - b excess) + (1 - a) f              :class:`.rewards.StepAwareReward`
GRPO      advantage: (R - mean) / (std + eps)                 :func:`.rewards.group_advantages`
GRPO      clipped surrogate with KL penalty                   :func:`.loss.policy_loss`, :func:`.token_loss.token_loss`
========  ==================================================  ==========================================================

Where this package departs from the paper (P) or from its public code (C):

1. P, C: only a share of each group is probed (``probe_rate``); both probe every member, which is 1.0 here. With every
   member probed, exits are compared with exits, and the embedded model learns to stop several times more slowly.
2. P: preset ``official`` probes inside the thoughts, drops the trial answer and samples a fresh one, as the code does;
   preset ``paper`` closes the thoughts with the probe and keeps an accepted trial answer, as the text does.
3. P: in ``paper`` the inducing prompt also opens the box; its answers could not be graded otherwise.
4. C: a leading token is left out of the confidence only if it holds nothing but the opening brace; the code drops the
   first token whatever it holds, and Qwen3 has merged tokens such as ``{x``.
5. C: a marker is a whole word before the first ``</think>``, recognised on token ids with a lookahead ("Waiting" is not
   one); the code also counts words after the close.
6. C: a missing box earns no format reward; in the code the format term is constant.
7. C: the code's exit on repeated chunks is left out: its check almost never fires.
8. P, C: each token is drawn from a stateless number of (seed, rollout, sample, position), so a completion does not
   depend on the batch that it rode in.
"""
