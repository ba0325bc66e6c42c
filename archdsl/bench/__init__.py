"""Time a model beside other programs: runner, candidates, results, roofline."""
