from teacher_fixtures import catalog, network, reference, run, sizes, teacher, walks

__all__ = ["catalog", "network", "reference", "run", "sizes", "teacher", "walks"]
