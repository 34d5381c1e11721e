"""The web page of a store: `perdure ui`. The server renders all pages; the browser runs no code of other projects.

    server      the address, the one-time link, and the HTTP server
    guard       the checks in front of every request: Host, session, Origin; and the headers of every response
    app         the routes: each page as HTML and as JSON, and live events
    pages       the data of each page, as JSON data
    settings    what the pages may show and do
    filters     the filters of the list of runs
    many        operations on all runs of a filter
    files       the content of files in values: previews, pictures, downloads
    compare     two runs side by side
    graph       the graph of a run's tasks
    acts        operations on runs and schedules, each from a form
    forms       form fields from signatures and from the types of messages, and their texts as values
    values      stored values for people, with secrets masked
    rendering   templates and filters
    metrics     figures of the store for Prometheus
    pulse       watches the store for changes, once for all browsers

A page function returns JSON data. The template of a page gets the same data, so HTML and JSON cannot differ. The
package needs the extra `ui`; `perdure.cli` imports the package on demand.
"""
