"""`brc report`: one HTML page of one run or several, which needs no server and no network.

runs reads what a run's folder holds; curves makes of its evaluations what is drawn, with intervals; figures draws with
matplotlib, as SVG whose colors the page chooses; page puts figures and tables into page.html, with page.css and page.js
inside. write(), in page, is called by `brc report`, and by a run when it ends. Nothing here knows Ray or torch.
"""
