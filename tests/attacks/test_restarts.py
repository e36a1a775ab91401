import torch

from lightning_adv.attacks.restarts import Run, worse


def test_of_each_sample_the_higher_rank_then_the_larger_loss_then_the_first_is_kept():
    drawn = torch.Generator().manual_seed(0)
    runs = [Run(torch.full((200, 1), number), *torch.randint(0, 3, (2, 200), generator=drawn)) for number in range(2)]
    kept = worse(*runs)
    for row in range(200):
        first, second = ((int(run.rank[row]), int(run.loss[row])) for run in runs)
        winner = 1 if second > first else 0  # pairs compare by rank, then by loss
        assert kept.images[row].item() == winner
        assert (int(kept.rank[row]), int(kept.loss[row])) == max(first, second)
