"""Every claim of the five papers, with its source and what would count as seeing it again.

Numbers are those of the abstracts; an empty one was not found and is not filled in. Where a paper leaves its recipe or
its threshold open, the criterion is ours and says so.
"""

from __future__ import annotations

from slimbench.reports.claim import SOME, Claim, Figure, Paper, Place, Select

# ------------------------------------------------------------------------------------------------------------ DCSS

DCSS_V1 = "arXiv 2010.14714 v1, abstract"
DCSS_V2 = "arXiv 2010.14714 v2, abstract"
SEARCHED = {"source": None, "discretise": "expectation", "penalty": None}
SCRATCH_B = Select("uniform_width", {"arm": "scratch-B"})
OURS = "full, by our schedule (the paper's is not known)"


def _widths(task: str, networks: tuple[str, ...], epochs: tuple[float, float]) -> Claim:
    return Claim(
        f"pruning results as good as any on {task}",
        DCSS_V1,
        "better than uniform width at equal MACs with as much training, search included (ours, and strict: a tie is "
        "not enough; the paper's tables are not at hand)",
        Select("dcss", SEARCHED, tasks=(task,)),
        SCRATCH_B,
        places=(Place((task,), networks, epochs),),
    )


def _own_search(family: str, place: Place, recipe: str) -> Claim:
    return Claim(
        f"{family}: widths searched on the task itself beat widths carried over from classification",
        DCSS_V2 if family != "segmentation" else DCSS_V1,
        "better at equal MACs with the same training",
        Select("dcss", SEARCHED, family=family),
        Select("dcss", {"source": SOME}),
        differs="source",
        places=(place,),
        recipe=recipe,
    )


CIFAR_NETWORKS = ("preresnet20", "preresnet32", "preresnet56")
DCSS = Paper(
    "DCSS",
    "Differentiable channel sparsity search (Zhao and Lee)",
    ("dcss",),
    (
        _widths("cifar10", CIFAR_NETWORKS, (600, 405)),
        _widths("cifar100", CIFAR_NETWORKS, (600, 405)),
        _widths("imagenet", ("imagenet-preresnet18", "imagenet-preresnet50"), (120, 144)),
        _own_search("segmentation", Place(("voc2012",), ("deeplabv3-resnet50",), (80, 54)), OURS),
        _own_search("super resolution", Place(("div2k",), ("edsr-baseline",), (64, 28.8)), "authors' code"),
        Claim(
            "the search takes little enough memory for segmentation",
            DCSS_V1,
            "at most 1.5 times the memory of the dense network's training, data aside (the threshold is ours)",
            Select("dcss", SEARCHED, family="segmentation"),
            Select("dense"),
            within="heading",
            figure="training memory",
            least=1 / 1.5,
            places=(Place(("voc2012",), epochs=(80, 54)),),
            recipe=OURS,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------ ETPF

ETPF_ABSTRACT = "arXiv 2110.10876, abstract"
ETPF_READ = "arXiv 2110.10876: its contribution, as we read it"
COSINE = "authors' counts and epochs, rates by our schedule"
FIRST = ("SymDiv", "AbsSNR", "FDR", "Tstats", "WL1", "WL2", "GeoMedian")
EVOLVED = {"function": ("GA_Func1", "GA_Func2", "GA_Func3", "GA_Func4")}
ELSEWHERE = ("resnet20", "resnet56", "resnet110", "imagenet-resnet50")
BEST_SEED = Select("etpf", {"function": FIRST})

ETPF = Paper(
    "ETPF",
    "Evolving transferable pruning functions (Liu et al.)",
    ("etpf",),
    (
        Claim(
            "evolved functions beat what evolution began with, on the tasks it ran on",
            ETPF_READ,
            "each of GA_Func1 to 4 better than the best of seven seeds, at equal widths and retraining",
            Select("etpf", EVOLVED, networks=("lenet5", "vgg16-bn-fc", "vgg16-relu-bn-fc")),
            BEST_SEED,
            differs="function",
            each="function",
            places=(
                Place(("mnist",), ("lenet5",), (100, 300)),
                Place(("cifar10",), ("vgg16-bn-fc", "vgg16-relu-bn-fc"), (200, 200)),
            ),
            recipe=COSINE,
        ),
        Claim(
            "evolved functions transfer to other networks and data as they are",
            ETPF_ABSTRACT,
            "each of GA_Func1 to 4 better than the best of seven seeds, at equal widths and retraining",
            Select("etpf", EVOLVED, tasks=("cifar10", "cifar100", "imagenet"), networks=ELSEWHERE),
            BEST_SEED,
            differs="function",
            each="function",
            places=(
                Place(("cifar10", "cifar100"), ("resnet56", "resnet110"), (200, 200)),
                Place(("imagenet",), ("imagenet-resnet50",), (90, 30)),
            ),
            recipe=COSINE,
        ),
        Claim(
            "pruning results as good as any on ILSVRC-2012",
            ETPF_ABSTRACT,
            "GA_Func2 better than the best of seven seeds at equal widths and retraining (ours: no table is at hand)",
            Select("etpf", {"function": "GA_Func2"}, tasks=("imagenet",)),
            BEST_SEED,
            differs="function",
            places=(Place(("imagenet",), epochs=(90, 30)),),
            recipe=OURS,
        ),
        Claim(
            "evolving on small data costs less than evolving on a large set directly",
            ETPF_ABSTRACT,
            "no suite: it would take an evolution on ILSVRC-2012",
            None,
        ),
    ),
)

# ---------------------------------------------------------------------------------------------------------- ResConv

RESCONV_ABSTRACT = "arXiv 2011.14356, abstract"
HEADLINE = Select(
    "resconv",
    {"form": "A", "penalty": "uniform"},
    networks=("resnet110", "resnet56"),
    keep=(0.3, 0.4),
    params_keep=(0.4, 0.5),
)
AT_RESNET110 = Place(("cifar10",), ("resnet110",), (200, 80))


def _headline(claimed: float, convention: str, says: str, criterion: str, figure: Figure) -> Claim:
    return Claim(
        says,
        RESCONV_ABSTRACT,
        criterion,
        HEADLINE,
        Select("dense") if figure == "quality" else None,
        within="heading",
        figure=figure,
        least={"quality": -0.13, "macs removed": 65.0, "params removed": 55.0}[figure],
        slack_sd=1.0 if figure == "quality" else 0.0,
        claimed=claimed,
        convention=convention,
        places=(AT_RESNET110,),
        recipe=OURS,
    )


def _against_channels(says: str, figure: Figure) -> Claim:
    return Claim(
        says,
        RESCONV_ABSTRACT,
        "more of it is saved than by L1 channels at equal MACs, on the same machine; intervals apart",
        Select("resconv", keep=(0.0, 0.9)),
        Select("l1_channels"),
        figure=figure,
        least=1.0,
        places=(Place(("cifar10",), ("resnet110", "resnet56"), (200, 80)),),
        recipe=OURS,
    )


def _trained(says: str, networks: tuple[str, ...]) -> Claim:
    return Claim(
        says,
        RESCONV_ABSTRACT,
        "better than the same network trained without residual convolutions",
        Select("resconv_scratch", {"variant": "R2"}, networks=networks, keep=(1.0, 1.0)),
        Select("dense"),
        within="heading",
        places=(Place(("cifar10",), epochs=(200, 0)),),
        recipe=OURS,
    )


RESCONV = Paper(
    "ResConv",
    "Layer pruning by fusible residual convolutional blocks (Xu et al.)",
    ("resconv", "resconv_scratch"),
    (
        _headline(
            -0.13,
            "points of top-1, at 65.5 % of FLOPs and 55.5 % of params removed",
            "ResNet-110 on CIFAR-10 loses 0.13 points",
            "at most 0.13 points and one deviation of the seeds (that slack is ours) are lost",
            "quality",
        ),
        _headline(
            65.5,
            "% of FLOPs; how they are counted is not said",
            "65.5 % of its FLOPs removed",
            "at least 65 % of MACs (the half point of slack is ours)",
            "macs removed",
        ),
        _headline(
            55.5,
            "% of params",
            "55.5 % of its parameters removed",
            "at least 55 % of params (the half point of slack is ours)",
            "params removed",
        ),
        _trained("deep plain networks become trainable", ("plain56",)),
        _trained("residual convolutions raise accuracy", ("plain20", "resnet20", "resnet56")),
        Claim(
            "fused after training, they cost nothing in inference",
            RESCONV_ABSTRACT,
            "no more MACs than the network trained without",
            Select("resconv_scratch", {"variant": "R2"}, keep=(1.0, 1.0)),
            figure="macs removed",
            least=-0.01,
            recipe="any: counted",
        ),
        Claim(
            "at low rates no retraining is needed",
            RESCONV_ABSTRACT,
            "without fine-tuning at most 0.5 points below with it, down to 0.7 of the MACs (the threshold is ours; "
            "dense is not compared)",
            Select("resconv", {"sparse_share": 1.0}, keep=(0.7, 0.95)),
            Select("resconv", {"sparse_share": 0.5}),
            differs="sparse_share",
            least=-0.5,
            places=(Place(("cifar10",), ("resnet56", "resnet110", "vgg16-bn"), (200, 40)),),
            recipe=OURS,
        ),
        _against_channels("removing layers takes less inference time than removing filters at equal FLOPs", "speed"),
        _against_channels("and less run-time memory", "memory"),
    ),
)

# ------------------------------------------------------------------------------------------------------------- DASS

DASS_ABSTRACT = "ACM TECS 22(5s) article 105, abstract"
AT_99 = (0.009, 0.011)
SPARSE_MOBILE = Select("sparse_scores", networks=("mobilenetv2", "mobilenetv2-eighth"), keep=AT_99)
# Of which size the numbers are, the abstract does not say. "Small", 36 channels in 20 cells, is ours: of the four it is
# the nearest to MobileNetV2 in parameters, and that of the DARTS cells. 8 in 4 stand in for it where all is thinned.
SMALL = {("channels", "cells"): ((36, 20), (8, 4))}
FOUND = Select("dass", {"genotype": "dass-99", **SMALL}, networks=("mobilenetv2", "mobilenetv2-eighth"), keep=AT_99)
AT_MOBILE = Place(("cifar10",), ("mobilenetv2",), (600, 220))
PRUNED = "top-1; that 99 % are zero is read from the authors' scripts"

DASS = Paper(
    "DASS",
    "Differentiable architecture search for sparse networks (Mousavi et al.)",
    ("dass", "sparse_scores"),
    (
        Claim(
            "a sparse MobileNetV2 reaches 73.44 %",
            DASS_ABSTRACT,
            "at most one point below it (that slack is ours)",
            SPARSE_MOBILE,
            least=72.44,
            claimed=73.44,
            convention=PRUNED,
            places=(AT_MOBILE,),
        ),
        Claim(
            "a DASS network reaches 81.35 %",
            DASS_ABSTRACT,
            "the size small at most one point below it (size and slack are ours)",
            FOUND,
            least=80.35,
            claimed=81.35,
            convention=f"{PRUNED}; of which size is not said",
            places=(AT_MOBILE,),
        ),
        Claim(
            "which is 7.91 points more",
            DASS_ABSTRACT,
            "the size small gains at most one point less than that (size and slack are ours)",
            FOUND,
            SPARSE_MOBILE,
            least=6.91,
            claimed=7.91,
            convention="points of top-1",
            places=(AT_MOBILE,),
        ),
        Claim(
            "and infers 3.87 times as fast",
            DASS_ABSTRACT,
            "the size small (ours) at least 3.87 times as fast as the sparse MobileNetV2, batch 1, PyTorch on a CPU",
            FOUND,
            SPARSE_MOBILE,
            figure="speed",
            profiles=("cpu",),
            batch=1,
            least=3.87,
            claimed=3.87,
            convention="times; on a CPU by the authors' scripts",
            places=(AT_MOBILE,),
        ),
        Claim(
            "cells searched for sparse weights beat dense DARTS cells once pruned",
            DASS_ABSTRACT,
            "the authors' cells at 99 % better than DARTS cells of the same size, small, pruned and trained alike",
            FOUND,
            Select("dass", {"genotype": "darts", **SMALL}),
            differs="genotype",
            places=(AT_MOBILE,),
        ),
    ),
)

# -------------------------------------------------------------------------------------------------------------- GPP

GPP_ABSTRACT = "arXiv 2009.13716, abstract"
PUSHED = {"push": ("eigen-free", "eigen"), "pick": "traced"}  # without a push it is the companion's pruning
RUNGS = {"inception3": "resnet20", "inception6": "resnet32", "inception9": "resnet44", "inception12": "resnet56"}


def _rung(inception: str, residual: str) -> Claim:
    return Claim(
        f"grown Inception networks beat residual ones of similar cost ({inception}, {residual})",
        GPP_ABSTRACT,
        "the dense networks, trained alike",
        Select("dense", tasks=("cifar10",), networks=(inception,)),
        Select("dense", networks=(residual,)),
        within="recipe",
        places=(Place(("imagenet",), epochs=(200, 0)),),
        recipe=OURS,
    )


GPP = Paper(
    "GPP",
    "Grow-push-prune (Tian et al.)",
    ("gpp", "gpp_grown"),
    (
        Claim(
            "pushing discriminants onto few neurons makes pruned networks better",
            "arXiv 2009.13716: its contribution, as we read it",
            "better than cross-entropy alone (the companion's pruning) at equal MACs, with the same training",
            Select("gpp", {"push": "eigen-free", "pick": "traced"}, family="classification"),
            Select("gpp", {"push": "none", "pick": "traced"}),
            differs="push",
            places=(
                Place(("cifar10", "cifar100"), ("vgg16-bn", "inception9"), (200, 380)),
                Place(("imagenet",), epochs=(90, 90)),
                Place(("mnist",), ("mlp", "lenet5"), (10, 6)),
            ),
            recipe=OURS,
        ),
        *(_rung(*pair) for pair in RUNGS.items()),
        Claim(
            "pruned from Inception-88, networks beat smaller Inception, residual and compact networks of similar size",
            GPP_ABSTRACT,
            "better than L1 channels at equal MACs (ours: compact networks of ILSVRC-2012 are no suite)",
            Select("gpp", PUSHED, tasks=("imagenet",), networks=("imagenet-inception28",)),
            Select("l1_channels"),
            places=(Place(("imagenet",), epochs=(90, 90)),),
            recipe=OURS,
        ),
    ),
)

PAPERS = (DCSS, ETPF, RESCONV, DASS, GPP)
