from training_fixtures import (
    catalog,
    chat_file,
    data,
    histories,
    index,
    semantic_ids,
    teacher,
    tiny_folder,
)

__all__ = [
    "catalog",
    "chat_file",
    "data",
    "histories",
    "index",
    "semantic_ids",
    "teacher",
    "tiny_folder",
]
