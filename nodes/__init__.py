"""The nodes: schemas and conversion. Each `execute` converts in, makes one call into the backend, converts out."""

from .animate import Scail2Animate
from .checking import Scail2InputCheck
from .comfy_sampling import Scail2CoreSampler
from .conditioning import Scail2ClipEncode, Scail2T5Encode
from .converting import Scail2Convert
from .decoding import WanVaeTiledDecode
from .doctor import Scail2Doctor
from .framing import Scail2FitReference
from .loaders import LoadScail2MLX, Scail2LoraLoader
from .masks import Scail2ColoredMask
from .presets import Scail2Settings
from .report import Scail2Report
from .sampling import Scail2Sampler
from .timing import Scail2ResampleFps
from .video_loading import Scail2LoadVideo
from .wan_loading import WanMLXLoader, WanMLXLora
from .wan_sampling import WanMLXPrompt, WanMLXSampler

NODES = (
    LoadScail2MLX,
    Scail2LoraLoader,
    Scail2T5Encode,
    Scail2ClipEncode,
    Scail2Sampler,
    WanVaeTiledDecode,
    Scail2Convert,
    Scail2Doctor,
    Scail2Settings,
    Scail2ColoredMask,
    Scail2ResampleFps,
    Scail2FitReference,
    Scail2InputCheck,
    Scail2Report,
    Scail2Animate,
    Scail2CoreSampler,
    Scail2LoadVideo,
    WanMLXLoader,
    WanMLXLora,
    WanMLXPrompt,
    WanMLXSampler,
)
