"""What runs leave behind and what is made of it.

manifest, energy            what produced a run, and at which cost
store                       one Parquet file a run
score, score_files          anyone's predictions against masks
cross_data, data_names      a study on several data sets, and what they are called
statistics                  intervals, paired differences, significance groups
leaderboard                 configurations ranked, like with like
sheet                       a table and its files: Parquet, CSV, Markdown, LaTeX, HTML
columns, export             the leaderboard as such a table
pictures, gallery           what was found, wrongly found and missed
figures, plots, sensitivity the plots of a search, and how they come onto a page
report                      a search in one HTML file
html, page.css, text        how pages are built, how they look, how numbers read
"""
