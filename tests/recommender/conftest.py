from training_fixtures import catalog, data, histories, index, semantic_ids, tiny_folder

__all__ = ["catalog", "data", "histories", "index", "semantic_ids", "tiny_folder"]
