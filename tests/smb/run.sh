# What a user sees of a store on an SMB share: runs on the server, with RIG's commands (see ./check).
#
# c1 has the share mounted as it is by default, and once more with nobrl. The store was made on the server's disk.
export PYTHONPATH=/payload:/payload/site PYTHONDONTWRITEBYTECODE=1
mkdir -p /export/team
c1 mkdir -p /mnt/nobrl
c1 mount -t cifs -o "$RIG_MOUNT_OPTS,nobrl,username=ines,password=secret,nosharesock" //10.0.1.1/models /mnt/nobrl
c1 grep cifs /proc/self/mountinfo

python3 -c "import shares; shares.fill('/export/team/models.db')"
# What is copied has no journal, and nothing may make one.
rm /export/team/models.db-journal

status=0
c1 python3 trials.py /mnt/nfs/team /mnt/nobrl/team || status=1
echo "what doctor says of nobrl:"
c1 python3 -m views_runs model --store /mnt/nobrl/team/models.db doctor > /results/doctor 2>&1 && status=1
cat /results/doctor
grep -q "failure *file system .* nobrl lets two computers write at once" /results/doctor || status=1
echo "$SECONDS s: the end, with status $status"
exit "$status"
