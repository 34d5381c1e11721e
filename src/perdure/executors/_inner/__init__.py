"""The inner end of one body in a pool child.

The deciding code (bodies, replay, protocols, attempts) is the same as in every process. Only the parts that concern the
whole run are replaced, each behind the interface that the core has for the part:

- `store`: questions to the outer process, and the part of a store that bodies need.
- `threads`: threads that count their jobs.
- `writer`: the commit path. The outer process writes the rows.
- `gate`: whether anything new may start. The outer process decides.
- `delegate`: tasks that the outer process carries out.
- `driver`: drives the one body.

`core.run.remote_body` states E1 to E7; these modules keep them for the inner end.
"""
