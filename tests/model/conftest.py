from hub_fixtures import hub, trained, trained_once
from training_fixtures import catalog, data, histories

__all__ = ["catalog", "data", "histories", "hub", "trained", "trained_once"]
