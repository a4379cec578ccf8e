from batchrun.transport.own.arrivals import PythonArrivals

class Arrivals(PythonArrivals): ...  # not by descent: it has the same methods
